"""What a sparsified model's config carries, so that the plan travels in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.backend import AUTO
from sparseattn.errors import PlanError
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = ["FIELD", "SparsityConfig"]

#: The config attribute.
FIELD = "sparseattn"


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
        needs = self.plan.needs
        ids = columns.get("input_ids")
        known: dict[str, Tensor | None] = {"embedding": embedding if "embedding" in needs else None}
        if ids is not None and "special" in needs and self.special is not None:
            known["special"] = _among(ids, self.special)
        if ids is not None and "separators" in needs and self.separators is not None:
            known["separators"] = _among(ids, self.separators)
        return TokenBatch.of_columns(columns, **known)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
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
            PlanError: It is not a record.
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


def _among(ids: Tensor, wanted: tuple[int, ...]) -> Tensor:
    return torch.isin(ids, torch.tensor(wanted, dtype=ids.dtype, device=ids.device))
