"""Neighbours within a share of the text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import refused
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Elastic(Pattern):
    """Tokens at most `share` of the text's length away, rounded to the nearest, clipped.

    A fixed radius gets sparser as texts get longer; this one keeps its sparsity.

    Args:
        share: The radius as a share of the real tokens, from 0 to 1.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("elastic(share=0.25)").rule(TokenBatch.of_lengths(4)).dense(4).int()[0, 0])
    tensor([[1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1],
            [0, 0, 1, 1]], dtype=torch.int32)
    """

    share: float

    name: ClassVar[str] = "elastic"
    formula: ClassVar[str] = "|q - k| <= round(share n)"
    degrees: ClassVar[str] = "2 round(share n) + 1"
    source: ClassVar[str] = "sliding window: Longformer, arXiv 2004.05150; the share is ours"
    example: ClassVar[str] = "elastic(share=0.1)"

    def __post_init__(self) -> None:
        value = self.share
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= 1:
            raise refused(self, "share", "must be a number from 0 to 1")
        object.__setattr__(self, "share", float(value))

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        radius = torch.floor(tokens.lengths.double() * self.share + 0.5).long()
        return Rule((Band(radius[:, None].expand(-1, tokens.length)),))
