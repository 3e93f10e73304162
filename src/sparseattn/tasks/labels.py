"""Class names, and which one a value of the data stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sparseattn.errors import DataError
from sparseattn.tasks.sources import Split

__all__ = ["Labels"]

#: More classes than this in a column that names none look like something else.
_MOST = 1000


@dataclass(frozen=True)
class Labels:
    """The classes of a task, numbered.

    Attributes:
        names: Their names, in the order of their numbers.
        numbers: The number of each value that may stand in the data: a name, or a number.
    """

    names: tuple[str, ...]
    numbers: dict[Any, int]

    @classmethod
    def of(cls, declared: tuple[str, ...] | None, split: Split, column: str) -> Labels:
        """Takes the names from the task, or else from the data set, or else from its values.

        A number in the data is a place among the declared names, unless the data set says what
        its own numbers mean in the same names.

        Raises:
            DataError: There is no way to number the values.
        """
        own = split.class_names.get(column, ())
        names = declared or own
        if not names:
            return cls._inferred(_flat(split.table[column].to_pylist()), column)
        numbers: dict[Any, int] = {name: index for index, name in enumerate(names)}
        if set(own) <= set(names):
            meaning = [numbers[name] for name in own] or range(len(names))
        elif len(own) == len(names):
            meaning = range(len(names))
        else:
            raise DataError(
                f"labels {', '.join(names)} do not fit column {column!r}, of which the classes are "
                f"{', '.join(own)}"
            )
        return cls(names, {**numbers, **dict(enumerate(meaning))})

    @classmethod
    def _inferred(cls, found: Iterable[Any], column: str) -> Labels:
        kinds = set(found)
        if any(isinstance(value, float) and not value.is_integer() for value in kinds):
            raise DataError(
                f"column {column!r} holds fractions, not classes; is this a regression task?"
            )
        try:
            ordered = sorted(kinds)
        except TypeError:
            raise DataError(
                f"column {column!r} mixes {_types(kinds)}; name the classes in labels"
            ) from None
        if not 2 <= len(ordered) <= _MOST:
            raise DataError(f"column {column!r} has {len(ordered):,} different values as classes")
        return cls(tuple(map(str, ordered)), {value: i for i, value in enumerate(ordered)})

    def number(self, value: Any) -> int | None:
        """The class that a value stands for; None if it stands for none."""
        return self.numbers.get(value) if isinstance(value, str | int | float) else None

    def misfit(self, value: Any) -> str:
        """Says that a value stands for no class."""
        hint = "; -1 marks a split without labels" if value == -1 else ""
        numbers = f" (or 0 to {len(self.names) - 1})" if 0 in self.numbers else ""
        return f"label {value!r} does not fit; choose from: {', '.join(self.names)}{numbers}{hint}"


def _flat(found: list[Any]) -> Iterable[Any]:
    for value in found:
        yield from value if isinstance(value, list) else [value]


def _types(kinds: set[Any]) -> str:
    return " and ".join(sorted({type(value).__name__ for value in kinds}))
