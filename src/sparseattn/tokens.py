"""What a pattern may know of a batch: its real tokens, and annotations of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.annotations import ANNOTATIONS, COLUMNS
from sparseattn.errors import AnnotationError


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A padded batch of token sequences and what is known about each token.

    Attributes:
        valid: True for a real token, False for padding. Shape: [batch, length], bool.
        ids: Vocabulary ids. Shape: [batch, length], int64.
        special: True for tokens that the tokenizer added. Shape: [batch, length], bool.
        separators: True for `sep` tokens. Shape: [batch, length], bool.
        words: Index of the word that a token belongs to, -1 for none; unique over both texts of a
            pair. Shape: [batch, length], int64.
        sentences: Index of its sentence, -1 for none. Shape: [batch, length], int64.
        heads: Word index of the syntactic head of its word (a root is its own head), -1 for none.
            Shape: [batch, length], int64.
        tags: Part of speech of its word, an index of `sparseattn.annotations.TAGS`, -1 for none.
            Shape: [batch, length], int64.
        embedding: The model's input embeddings. Shape: [vocabulary, width], any float.
    """

    valid: Tensor
    ids: Tensor | None = None
    special: Tensor | None = None
    separators: Tensor | None = None
    words: Tensor | None = None
    sentences: Tensor | None = None
    heads: Tensor | None = None
    tags: Tensor | None = None
    embedding: Tensor | None = None

    @classmethod
    def of_lengths(cls, *lengths: int) -> TokenBatch:
        """A batch of unannotated sequences, padded on the right.

        >>> TokenBatch.of_lengths(3, 1).valid.int().tolist()
        [[1, 1, 1], [1, 0, 0]]
        """
        longest = max(lengths, default=0)
        return cls(torch.arange(longest)[None, :] < torch.tensor(lengths).reshape(-1, 1))

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any], **known: Tensor | None) -> TokenBatch:
        """Reads `input_ids`, `attention_mask` and the annotation columns of a collated batch."""
        ids = columns.get("input_ids")
        mask = columns.get("attention_mask")
        if ids is None and mask is None:
            raise AnnotationError("a batch needs input_ids or attention_mask; it has neither")
        valid = mask.bool() if mask is not None else torch.ones_like(ids, dtype=torch.bool)  # type: ignore[arg-type]
        values = {field: columns.get(column) for column, field in COLUMNS.items()}
        if values["special"] is not None:
            values["special"] = values["special"].bool()
        return cls(valid, ids=ids, **(values | known))

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.valid.shape[0]

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return self.valid.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.valid.device

    @property
    def positions(self) -> Tensor:
        """Index of each real token among the real tokens of its row, -1 for padding.

        Shape: [batch, length], int64. The same under left and right padding.
        """
        order = self.valid.long().cumsum(dim=1) - 1
        return order.masked_fill(~self.valid, -1)

    @property
    def lengths(self) -> Tensor:
        """Real tokens a row. Shape: [batch], int64."""
        return self.valid.sum(dim=1)

    def need(self, name: str, who: object) -> Tensor:
        """Returns the annotation `name`.

        Raises:
            AnnotationError: The batch does not carry it; the message says how to get it.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise AnnotationError(
                f"{who} needs {name!r}, which this batch does not carry: {ANNOTATIONS[name]}"
            )
        return value
