"""Between a padded batch and one row of its real tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the real tokens of a batch stand.

    Attributes:
        batch: Texts.
        length: Padded length in tokens.
        index: Place of each real token in the batch laid out in a row. Shape: [real tokens].
        lengths: Real tokens of each text.
    """

    batch: int
    length: int
    index: Tensor
    lengths: list[int]

    @classmethod
    def of(cls, valid: Tensor) -> Layout | None:
        """The layout of a batch, [batch, length], bool; None without padding, or with it alone."""
        index = valid.flatten().nonzero().flatten()
        if len(index) in (0, valid.numel()):
            return None
        batch, length = valid.shape
        return cls(batch, length, index, valid.sum(dim=1).tolist())

    def pack(self, states: Tensor) -> Tensor:
        """The real tokens. From [batch or 1, length, ...] to [1, real tokens, ...]."""
        if len(states) != self.batch:
            states = states.expand(self.batch, *states.shape[1:])
        return states.flatten(0, 1).index_select(0, self.index)[None]

    def unpack(self, states: Tensor) -> Tensor:
        """The batch, with zeros for padding: the other way round."""
        rows = states.new_zeros(self.batch * self.length, *states.shape[2:])
        rows = rows.index_copy(0, self.index, states[0])
        return rows.view(self.batch, self.length, *states.shape[2:])

    def unpack_heads(self, states: Tensor) -> Tensor:
        """From [1, heads, real tokens, width] to [batch, heads, length, width]."""
        return self.unpack(states.transpose(1, 2)).transpose(1, 2)

    def attend_within_texts(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float
    ) -> Tensor:
        """Dense attention in each text. Shape of all: [1, heads, real tokens, width]."""
        parts = (torch.split(states, self.lengths, dim=2) for states in (query, key, value))
        contexts = [
            scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
            for q, k, v in zip(*parts, strict=True)
        ]
        return torch.cat(contexts, dim=2)

    def packs(self, value: Any) -> bool:
        """Whether something has a row for each token of the batch."""
        return (
            isinstance(value, Tensor)
            and value.dim() == 3
            and value.is_floating_point()
            and value.shape[0] in (1, self.batch)
            and value.shape[1] == self.length
        )

    def pack_all(self, value: Any) -> Any:
        """`pack` for what has a row for each token, in tuples too; the rest as it is."""
        if isinstance(value, tuple):
            return tuple(map(self.pack_all, value))
        return self.pack(value) if self.packs(value) else value

    def unpack_all(self, value: Any) -> Any:
        """`unpack` likewise."""
        if isinstance(value, tuple):
            return tuple(map(self.unpack_all, value))
        packed = isinstance(value, Tensor) and value.shape[:2] == (1, len(self.index))
        return self.unpack(value) if packed else value
