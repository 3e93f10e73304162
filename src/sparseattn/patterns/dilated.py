"""Neighbours in the text, with gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Dilated(Pattern):
    """Every `dilation`-th token, `radius` of them to each side, clipped at the borders.

    `dilation=1` is `neighbor(radius)`. Longformer gives a dilation to some heads only; a plan does
    that with `heads`.

    Args:
        radius: Keys to each side: 0 is the token alone.
        dilation: Distance from one key to the next, in tokens.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("dilated(1, 2)").rule(TokenBatch.of_lengths(5)).dense(5).int()[0, 0])
    tensor([[1, 0, 1, 0, 0],
            [0, 1, 0, 1, 0],
            [1, 0, 1, 0, 1],
            [0, 1, 0, 1, 0],
            [0, 0, 1, 0, 1]], dtype=torch.int32)
    """

    radius: int
    dilation: int

    name: ClassVar[str] = "dilated"
    formula: ClassVar[str] = "|q - k| <= radius * dilation and (q - k) % dilation = 0"
    degrees: ClassVar[str] = "2 radius + 1"
    source: ClassVar[str] = "dilated sliding window: Longformer, arXiv 2004.05150, section 3.1"
    example: ClassVar[str] = "dilated(radius=2, dilation=2)"

    def __post_init__(self) -> None:
        at_least(self, radius=0, dilation=1)

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((Band(self.radius, self.dilation),))
