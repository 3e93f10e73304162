"""Tokens a whole number of strides away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Rule, SameLabel
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Strided(Pattern):
    """Every `stride`-th token, over the whole text and in both directions.

    The strided half of the Sparse Transformer's attention, which is causal there and joined to a
    window of `stride` tokens: write `strided(s) | neighbor(s)` for both.

    Args:
        stride: Distance from one key to the next, in tokens; 1 is every token.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("strided(3)").rule(TokenBatch.of_lengths(5)).dense(5).int()[0, 0])
    tensor([[1, 0, 0, 1, 0],
            [0, 1, 0, 0, 1],
            [0, 0, 1, 0, 0],
            [1, 0, 0, 1, 0],
            [0, 1, 0, 0, 1]], dtype=torch.int32)
    """

    stride: int

    name: ClassVar[str] = "strided"
    formula: ClassVar[str] = "(q - k) % stride = 0"
    degrees: ClassVar[str] = "n / stride"
    source: ClassVar[str] = "strided attention: Sparse Transformer, arXiv 1904.10509, section 4.3"
    example: ClassVar[str] = "strided(stride=4)"

    def __post_init__(self) -> None:
        at_least(self, stride=1)

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((SameLabel((tokens.positions % self.stride).masked_fill(~tokens.valid, -1)),))
