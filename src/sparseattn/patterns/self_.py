"""Each token alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Self(Pattern):
    """The token itself and nothing else: the sparsest pattern there is.

    The floor of every study: what a model keeps when a layer moves no information between tokens.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("self()").rule(TokenBatch.of_lengths(3)).dense(3).int()[0, 0])
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """

    name: ClassVar[str] = "self"
    formula: ClassVar[str] = "q = k"
    degrees: ClassVar[str] = "1"
    source: ClassVar[str] = "a control of our own: no connections"
    example: ClassVar[str] = "self()"

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((Band(0),))
