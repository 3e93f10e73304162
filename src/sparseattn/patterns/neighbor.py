"""Neighbours in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Neighbor(Pattern):
    """Tokens at most `radius` places away, clipped at the borders.

    Args:
        radius: One-sided and inclusive, in tokens: 0 is the token alone.

    >>> from sparseattn import neighbor
    >>> from sparseattn.tokens import TokenBatch
    >>> print(neighbor(radius=1).rule(TokenBatch.of_lengths(4)).dense(4).int()[0, 0])
    tensor([[1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1],
            [0, 0, 1, 1]], dtype=torch.int32)
    """

    radius: int

    name: ClassVar[str] = "neighbor"
    formula: ClassVar[str] = "|q - k| <= radius"
    degrees: ClassVar[str] = "2 radius + 1"
    source: ClassVar[str] = "sliding window: Longformer, arXiv 2004.05150, section 3.1"
    example: ClassVar[str] = "neighbor(radius=2)"

    def __post_init__(self) -> None:
        at_least(self, radius=0)

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((Band(self.radius),))
