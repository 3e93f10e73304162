"""The plan of a sparsified model as its config carries it, so that it travels in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparseattn.backend import AUTO
from sparseattn.errors import PlanError
from sparseattn.plan import Plan

#: The config attribute.
FIELD = "sparseattn"
#: The entry beside a plan that names the numbers of the linear layers.
QUANTIZED = "quantized"
#: The `attn_implementation` of a sparsified model.
NAME = "sparseattn"
#: Where an encoder keeps the `SparsityState` that `sparsify` put on it.
ATTRIBUTE = "_sparseattn_state"


@dataclass(frozen=True)
class SparsityConfig:
    """A plan with what is needed to apply it.

    Attributes:
        special: Ids of the tokens that the tokenizer adds; None if not known.
        separators: Ids of the `sep` tokens; None if not known.
    """

    plan: Plan
    backend: str = AUTO
    special: tuple[int, ...] | None = None
    separators: tuple[int, ...] | None = None

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
        backend = data.get("backend", AUTO)
        if not isinstance(backend, str):
            raise PlanError(f"the config's backend is a name, such as {AUTO!r}")
        special, separators = (_ids(data.get(name), name) for name in ("special", "separators"))
        return cls(Plan.from_json(data["plan"]), backend, special, separators)


def _ids(value: Any, name: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < 2**63 for i in value):
        raise PlanError(f"the config's {name!r} lists ids of tokens")
    return tuple(value)


def remove_plan(config: Any) -> None:
    """Takes a saved plan out of a transformers config."""
    for name in {FIELD, "attn_implementation"} & vars(config).keys():
        delattr(config, name)
