"""Every pair: dense attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn import rules
from sparseattn.pattern import Pattern
from sparseattn.rules import Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Full(Pattern):
    """Every pair of real tokens, as in the stock model."""

    name: ClassVar[str] = "full"
    formula: ClassVar[str] = "every (q, k)"
    degrees: ClassVar[str] = "n"
    source: ClassVar[str] = "dense attention: arXiv 1706.03762, section 3.2"
    example: ClassVar[str] = "full()"

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((rules.AllPairs(),))
