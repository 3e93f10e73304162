"""The plan of a sparsified model as its config carries it, so that it travels in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparseattn.backend import AUTO
from sparseattn.errors import PlanError
from sparseattn.plan import Plan

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

    def to_json(self) -> dict[str, Any]:
        """The config as plain values."""
        ids = {name: getattr(self, name) for name in ("special", "separators")}
        lists = {name: None if value is None else list(value) for name, value in ids.items()}
        return {"plan": self.plan.to_json(), "backend": self.backend, **lists}

    @classmethod
    def from_json(cls, data: Any) -> SparsityConfig:
        """Reads what `to_json` wrote.

        Raises:
            PlanError: It holds no plan.
        """
        if not isinstance(data, dict) or "plan" not in data:
            raise PlanError(f"the config's {FIELD!r} entry does not hold a plan")
        ids = (data.get(name) for name in ("special", "separators"))
        special, separators = (None if value is None else tuple(value) for value in ids)
        plan = Plan.from_json(data["plan"])
        return cls(plan, data.get("backend", AUTO), special, separators)

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
