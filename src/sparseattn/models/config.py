"""The plan of a sparsified model as its config carries it, so that it travels in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.backend import AUTO
from sparseattn.errors import PlanError
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = ["FIELD", "NAME", "SparsityConfig", "remove_plan"]

#: The config attribute.
FIELD = "sparseattn"
#: The `attn_implementation` of a sparsified model.
NAME = "sparseattn"


@dataclass(frozen=True)
class SparsityConfig:
    """A plan with what is needed to apply it.

    Attributes:
        plan: The plan.
        backend: The backend asked for, or `auto`.
        special: Ids of the tokens that the tokenizer adds; None if not known.
        separators: Ids of the `sep` tokens; None if not known.
    """

    plan: Plan
    backend: str = AUTO
    special: tuple[int, ...] | None = None
    separators: tuple[int, ...] | None = None

    def tokens(self, columns: dict[str, Any], embedding: Tensor | None) -> TokenBatch:
        """Builds the batch that the plan is compiled for; only what the plan needs is computed."""
        needs, ids = self.plan.needs, columns.get("input_ids")
        known = {"embedding": embedding if "embedding" in needs else None}
        for name in ("special", "separators"):
            members: tuple[int, ...] | None = getattr(self, name)
            if ids is not None and name in needs and members is not None:
                known[name] = torch.isin(
                    ids, torch.tensor(members, dtype=ids.dtype, device=ids.device)
                )
        return TokenBatch.of_columns(columns, **known)

    def to_json(self) -> dict[str, Any]:
        """The config as plain values."""
        return {
            "plan": self.plan.to_json(),
            "backend": self.backend,
            "special": None if self.special is None else list(self.special),
            "separators": None if self.separators is None else list(self.separators),
        }

    @classmethod
    def from_json(cls, data: Any) -> SparsityConfig:
        """Reads what `to_json` wrote.

        Raises:
            PlanError: It holds no plan.
        """
        if not isinstance(data, dict) or "plan" not in data:
            raise PlanError(f"the config's {FIELD!r} entry does not hold a plan")
        special, separators = data.get("special"), data.get("separators")
        return cls(
            Plan.from_json(data["plan"]),
            data.get("backend", AUTO),
            None if special is None else tuple(special),
            None if separators is None else tuple(separators),
        )

    @classmethod
    def of_loaded(cls, config: Any) -> SparsityConfig | None:
        """What plain `from_pretrained` made a model follow; None where it runs dense."""
        data = getattr(config, FIELD, None)
        followed = data is not None and config._attn_implementation == NAME
        return cls.from_json(data) if followed else None


def remove_plan(config: Any) -> None:
    """Takes a saved plan out of a transformers config."""
    for name in {FIELD, "attn_implementation"} & vars(config).keys():
        delattr(config, name)
