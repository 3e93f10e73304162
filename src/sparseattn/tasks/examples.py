"""The examples that a task uses: chosen, checked, under its own column names, with its classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow

from sparseattn.errors import DataError
from sparseattn.tasks.data import Split
from sparseattn.tasks.spec import ROLES, Subset, TaskSpec
from sparseattn.words import counted

#: More classes than this in a column that names none look like something else.
_MOST = 1000
#: Columns of equal length.
Rows = dict[str, list[Any]]


def located(split: Split, row: int, column: str, problem: str) -> DataError:
    """The error for one value."""
    return DataError(f"row {row} of the {split.name} split, column {column!r}: {problem}")


def check_columns(task: TaskSpec, split: Split) -> None:
    """A `DataError` if a split lacks a column of the task; it lists what is there."""
    readable, required = ROLES[task.kind]
    for role in readable:
        name = getattr(task.columns, role)
        if name is not None and name not in split.table.column_names:
            where = "" if role in required else " (named in columns)"
            has = (c if c.isprintable() else repr(c) for c in split.table.column_names)
            raise DataError(
                f"the {split.name} split has no column {name!r} for {role!r}{where}; it has: "
                f"{', '.join(has)}"
            )


def values(split: Split, column: str, chosen: Sequence[int]) -> list[Any]:
    """The chosen values of a column."""
    rows = pyarrow.array(chosen, pyarrow.int64())
    return list(split.table[column].take(rows).to_pylist())


def texts(split: Split, column: str, chosen: Sequence[int]) -> list[str]:
    """The chosen values of a column of text; a `DataError` if one is not text."""
    column_values = values(split, column, chosen)
    for row, value in zip(chosen, column_values, strict=True):
        if not isinstance(value, str):
            raise located(split, row, column, f"expected text, got {value!r}")
    return column_values


def names_of(split: Split, column: str | None, chosen: Sequence[int]) -> list[str]:
    """A name for each chosen example: its `id`, or its row; a `DataError` if two share one."""
    if column is None:
        return [str(row) for row in chosen]
    seen: dict[str, int] = {}
    for row, value in zip(chosen, values(split, column, chosen), strict=True):
        if str(value) in seen:
            raise located(split, row, column, f"{value!r} names row {seen[str(value)]} already")
        seen[str(value)] = row
    return list(seen)


def clusters_of(split: Split, column: str | None, chosen: Sequence[int]) -> Rows:
    """What each chosen example belongs to, as `cluster`; nothing without such a column."""
    if column is None:
        return {}
    return {"cluster": [str(value) for value in values(split, column, chosen)]}


def fitting(split: Split, subset: Subset, column: str) -> list[int]:
    """Row numbers of the examples of which `column` has `min_words`; a `DataError` for none."""
    chosen = list(range(len(split.table)))
    if subset.min_words is not None:
        found = split.table[column].to_pylist()
        words = (v.split() if isinstance(v, str) else v or () for v in found)
        chosen = [row for row, each in enumerate(words) if len(each) >= subset.min_words]
    if not chosen:
        raise DataError(
            f"the {split.name} split has no example{_least(subset)} "
            f"(of {counted(len(split.table), 'row')})"
        )
    return chosen


def draw(split: Split, subset: Subset, rows: list[int]) -> list[int]:
    """As many of some rows as the subset asks for, in order; a `DataError` if there are fewer."""
    if subset.count is None:
        return rows
    if subset.count > len(rows):
        raise DataError(
            f"{split.name}.count is {subset.count:,}, but the {split.name} split has only "
            f"{counted(len(rows), 'example')}{_least(subset)}"
        )
    return sorted(shuffled(rows, subset.seed)[: subset.count])


def shuffled(rows: Iterable[int], *seed: int) -> list[int]:
    """Numbers in the order of a seed, which is the same under every version of every library."""

    def place(row: int) -> bytes:
        return hashlib.sha256(":".join(map(str, (*seed, row))).encode()).digest()

    return sorted(rows, key=place)


def _least(subset: Subset) -> str:
    return f" of {subset.min_words} words or more" if subset.min_words else ""


def digest(*parts: Any) -> str:
    """A content hash of plain values: 16 hexadecimal digits of SHA-256 over their JSON."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
        hashed.update(b"\0")
    return hashed.hexdigest()[:16]


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
            found = split.table[column].to_pylist()
            flat = (each if isinstance(each, list) else [each] for each in found)
            return cls._inferred(set(chain.from_iterable(flat)), column)
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
    def _inferred(cls, kinds: set[Any], column: str) -> Labels:
        if any(isinstance(value, float) and not value.is_integer() for value in kinds):
            raise DataError(
                f"column {column!r} holds fractions, not classes; is this a regression task?"
            )
        try:
            ordered = sorted(kinds)
        except TypeError:
            types = " and ".join(sorted({type(value).__name__ for value in kinds}))
            raise DataError(
                f"column {column!r} mixes {types}; name the classes in labels"
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
