"""Tokenising the examples of a split."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np

from sparseattn.errors import DataError
from sparseattn.tasks.kind import Encoded, Kind
from sparseattn.tasks.rows import Rows, digest

__all__ = ["Annotate", "longest_first", "state", "tokenised"]

Annotate = Callable[..., dict[str, list[list[int]]]]

#: Examples that are tokenised at a time.
_BATCH = 1000


def tokenised(
    kind: Kind, rows: Rows, tokenizer: Any, labelled: bool, annotate: Annotate | None = None
) -> datasets.Dataset:
    """Tokenises the examples of a split.

    Args:
        kind: What kind of task they are for.
        rows: The examples.
        tokenizer: A fast tokenizer.
        labelled: Whether they are to train on.
        annotate: Makes annotation columns from the tokenizer's result and the texts that it was
            given; none by default.

    Returns:
        A row an input of the model, with its `length` in tokens and the columns of `Encoded`.
    """
    parts = []
    for start, encoded in _batches(kind, rows, tokenizer, labelled):
        columns = dict(encoded.columns)
        columns["row"] = [start + row for row in columns["row"]]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        if annotate is not None:
            columns |= annotate(encoded.encoding, *encoded.texts)
        parts.append(datasets.Dataset.from_dict(columns))
    return datasets.concatenate_datasets(parts)


def _batches(
    kind: Kind, rows: Rows, tokenizer: Any, labelled: bool
) -> Iterator[tuple[int, Encoded]]:
    for start in range(0, len(rows["example"]), _BATCH):
        part = {name: column[start : start + _BATCH] for name, column in rows.items()}
        try:
            yield start, kind.encode(part, tokenizer, labelled)
        except AssertionError as error:
            # transformers asserts, for instance, that RoBERTa's tokenizer is told of split words.
            raise DataError(f"{type(tokenizer).__name__} cannot tokenise this: {error}") from None


def longest_first(inputs: datasets.Dataset) -> datasets.Dataset:
    """Sorts inputs by length, so that a batch needs little padding and memory peaks at once."""
    return inputs.select(np.argsort(-np.asarray(inputs["length"]), kind="stable"))


def state(tokenizer: Any) -> str:
    """A hash of everything that decides how a fast tokenizer cuts text."""
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call asked for stays behind in these two.
    made.pop("truncation", None)
    made.pop("padding", None)
    return digest(type(tokenizer).__name__, tokenizer.padding_side, made)
