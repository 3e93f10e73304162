"""Texts as a model sees them: the batches that budgets are counted over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparseattn.annotations import COLUMNS
from sparseattn.errors import DataError
from sparseattn.models.encoder import encoder_of
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import sparsified
from sparseattn.models.state import SparsityState, attached_state
from sparseattn.plan import Plan
from sparseattn.syntax import Annotator, Collator
from sparseattn.tokens import TokenBatch

Row = Mapping[str, Any]
Batch = Mapping[str, Any]

#: Rows of a batch, and pairs of tokens in it, at most.
_ROWS, _PAIRS = 64, 1 << 20

#: Pairs of tokens of all rows, at most: they are counted one by one.
_ALL_PAIRS = 1 << 29

#: What a model reads of a row, labels aside.
READ = ("input_ids", "attention_mask", "token_type_ids", *COLUMNS)


class Texts:
    """Tokenised examples, joined into batches.

    Args:
        model: The model that they are for.
        data: Rows with `input_ids`.
        collator: Joins rows into a padded batch.
        most: Rows to use at most, spread evenly over the data; fewer where texts are long.

    Raises:
        DataError: There are none.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Sequence[Row],
        collator: Callable[[list[Any]], Batch],
        most: int = 4096,
    ) -> None:
        if not len(data):
            raise DataError("a sparsity is counted over texts, and there is none")
        if "input_ids" not in data[0]:
            raise DataError(f"the texts need the column input_ids; they have {sorted(data[0])}")
        self.model, self.data, self.collator = model, data, collator
        rows = spread_indices(len(data), most)
        pairs = sum(len(data[index]["input_ids"]) ** 2 for index in rows)
        fewer = max(1, len(rows) * _ALL_PAIRS // max(pairs, _ALL_PAIRS))
        self.rows = [rows[index] for index in spread_indices(len(rows), fewer)]

    def batches(self) -> Iterator[dict[str, Any]]:
        """The rows without their labels, in batches on the model's device."""
        device = next(self.model.parameters()).device
        for rows in self._split_rows():
            kept = [{name: row[name] for name in READ if name in row} for row in rows]
            yield {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in self.collator(kept).items()
            }

    def _split_rows(self) -> Iterator[list[Row]]:
        """Rows in their order; few at a time where they are long."""
        rows: list[Row] = []
        widest = 0
        for index in self.rows:
            row = self.data[index]
            widest = max(widest, len(row["input_ids"]))
            if rows and (len(rows) == _ROWS or (len(rows) + 1) * widest**2 > _PAIRS):
                yield rows
                rows, widest = [], len(row["input_ids"])
            rows.append(row)
        yield rows

    def tokens(self, plan: Plan, tokenizer: Any = None) -> list[TokenBatch]:
        """What a plan may know of each batch."""
        with sparsified(self.model, plan, tokenizer=tokenizer):
            state = state_of(self.model)
            return [state.tokens(batch) for batch in self.batches()]


def shape_of(model: nn.Module) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """The heads of each attention layer, and a radius that each never exceeds, None for no limit.

    Raises:
        UnsupportedModelError: The model does not let its attention be replaced.
    """
    with sparsified(model, "full()"):
        state = state_of(model)
        return tuple(state.heads), tuple(state.windows)


def state_of(model: nn.Module) -> SparsityState:
    """What `sparsify` put on a model that is known to be sparsified."""
    state = attached_state(model)
    assert state is not None, "only called inside sparsified()"
    return state


def spread_indices(count: int, most: int) -> list[int]:
    """At most so many indices, spread evenly.

    >>> spread_indices(5, 3)
    [0, 1, 3]
    """
    return [index * count // most for index in range(most)] if count > most else list(range(count))


def tokenizer_of(model: Any) -> Any:
    """The tokenizer that a model was saved with."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.name_or_path, trust_remote_code=False)


def tokenize(
    model: Any,
    texts: Sequence[Any],
    tokenizer: Any = None,
    needs: frozenset[str] = frozenset(),
    *,
    pairs: bool = False,
    most: int | None = None,
) -> tuple[list[Row], Collator]:
    """Rows from strings, cut to the model's positions; rows stay as they are.

    Args:
        model: What they are cut for.
        texts: Strings or rows.
        tokenizer: The one that the model was saved with by default.
        needs: The annotations that strings get, if they take a parse.
        pairs: Whether pairs of strings are texts as well.
        most: Texts to use at most, evenly spread.

    Returns:
        The rows, and what joins them into batches, with the tokenizer.

    Raises:
        UnsupportedModelError: See `encoder_of`.
        DataError: It is one string, or a text is none of these, or is empty.
    """
    config = encoder_of(model).config
    if isinstance(texts, str):
        raise DataError("texts is one text; give a list of them")
    tokenizer = tokenizer or tokenizer_of(model)
    limit = max_tokens(config, tokenizer)
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    read: Any = Annotator.for_needs(tokenizer, needs) or tokenizer
    rows: list[Row] = []
    for index in spread_indices(len(texts), len(texts) if most is None else most):
        text = texts[index]
        if isinstance(text, Mapping):
            rows.append(text)
            continue
        parts = tuple(text) if pairs and isinstance(text, list | tuple) else (text,)
        if not 1 <= len(parts) <= 2 or not all(isinstance(p, str) and p.strip() for p in parts):
            kinds = "a text, a pair of texts" if pairs else "a text"
            raise DataError(f"text {index} is not {kinds} or a tokenised row: {text!r}")
        rows.append(dict(read(*parts, **cut)))
    return rows, Collator(tokenizer)
