"""The examples that a task really uses: chosen, checked, under the task's own column names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow

from sparseattn.errors import DataError
from sparseattn.tasks.sources import Split
from sparseattn.tasks.spec import ROLES, Subset, TaskSpec

__all__ = ["Rows", "choose", "digest", "located", "names_of", "texts", "values"]

#: Columns of equal length.
Rows = dict[str, list[Any]]


def located(split: Split, row: int, column: str, problem: str) -> DataError:
    """The error for one value."""
    return DataError(f"row {row} of the {split.name} split, column {column!r}: {problem}")


def check_columns(task: TaskSpec, split: Split) -> None:
    """Makes sure that a split has the columns of the task.

    Raises:
        DataError: One is missing; the message lists what is there.
    """
    readable, required = ROLES[task.kind]
    for role in readable:
        name = getattr(task.columns, role)
        if name is not None and name not in split.table.column_names:
            asked = "" if role in required else " (named in columns)"
            raise DataError(
                f"the {split.name} split has no column {name!r} for {role!r}{asked}; it has: "
                f"{', '.join(split.table.column_names)}"
            )


def values(split: Split, column: str, chosen: Sequence[int]) -> list[Any]:
    """The chosen values of a column."""
    found: list[Any] = split.table[column].take(pyarrow.array(chosen, pyarrow.int64())).to_pylist()
    return found


def texts(split: Split, column: str, chosen: Sequence[int]) -> list[str]:
    """The chosen values of a column of text.

    Raises:
        DataError: One is not text.
    """
    found = values(split, column, chosen)
    for row, value in zip(chosen, found, strict=True):
        if not isinstance(value, str):
            raise located(split, row, column, f"expected text, got {value!r}")
    return found


def names_of(split: Split, column: str | None, chosen: Sequence[int]) -> list[str]:
    """A name for each chosen example: its `id` column, or its row number.

    Raises:
        DataError: Two examples share a name.
    """
    if column is None:
        return [str(row) for row in chosen]
    seen: dict[str, int] = {}
    for row, value in zip(chosen, values(split, column, chosen), strict=True):
        if str(value) in seen:
            raise located(split, row, column, f"{value!r} names row {seen[str(value)]} already")
        seen[str(value)] = row
    return list(seen)


def choose(split: Split, subset: Subset, column: str) -> list[int]:
    """Row numbers of a subset, in order.

    Args:
        split: What to choose from.
        subset: Which ones.
        column: The text, or list of words, that `min_words` counts.

    Raises:
        DataError: There are fewer examples than asked for, or none.
    """
    chosen: Iterable[int] = range(len(split.table))
    if subset.min_words is not None:
        lengths = [_words(value) for value in split.table[column].to_pylist()]
        chosen = [row for row in chosen if lengths[row] >= subset.min_words]
    chosen = list(chosen)
    least = f" of {subset.min_words} words or more" if subset.min_words else ""
    if not chosen:
        raise DataError(
            f"the {split.name} split has no example{least} (of {len(split.table):,} rows)"
        )
    if subset.count is None:
        return chosen
    if subset.count > len(chosen):
        raise DataError(
            f"{split.name}.count is {subset.count:,}, but the {split.name} split has only "
            f"{len(chosen):,} examples{least}"
        )
    # A hash instead of a generator: the same rows under every version of every library.
    drawn = sorted(chosen, key=lambda row: hashlib.sha256(f"{subset.seed}:{row}".encode()).digest())
    return sorted(drawn[: subset.count])


def _words(value: Any) -> int:
    return len(value.split()) if isinstance(value, str) else len(value or ())


def digest(*parts: Any) -> str:
    """A content hash of plain values: 16 hexadecimal digits of SHA-256 over their JSON."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
        hashed.update(b"\0")
    return hashed.hexdigest()[:16]
