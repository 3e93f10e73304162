"""Blocks of consecutive tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Rule, SameLabel
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Block(Pattern):
    """Tokens of the same block of `size`, counted from the first real token of a text.

    BlockBERT permutes the blocks of keys head by head; this is its identity permutation.

    Args:
        size: Tokens in a block; the last block of a text may be shorter.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("block(2)").rule(TokenBatch.of_lengths(5)).dense(5).int()[0, 0])
    tensor([[1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1]], dtype=torch.int32)
    """

    size: int

    name: ClassVar[str] = "block"
    formula: ClassVar[str] = "floor(q / size) = floor(k / size)"
    degrees: ClassVar[str] = "size"
    source: ClassVar[str] = "blockwise attention: BlockBERT, arXiv 1911.02972, section 3"
    example: ClassVar[str] = "block(size=4)"

    def __post_init__(self) -> None:
        at_least(self, size=1)

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        # Padding has position -1, and so block -1, which is no block.
        return Rule((SameLabel(tokens.positions.div(self.size, rounding_mode="floor")),))
