"""Sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.rules import Rule, SameLabel
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Sentence(Pattern):
    """Tokens of the same sentence. Special tokens belong to none.

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> real = torch.ones(1, 5, dtype=torch.bool)
    >>> tokens = TokenBatch(real, sentences=torch.tensor([[-1, 0, 0, 1, 1]]))
    >>> print(parse("sentence()").rule(tokens).dense(5).int()[0, 0])
    tensor([[0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 0, 0, 1, 1],
            [0, 0, 0, 1, 1]], dtype=torch.int32)
    """

    name: ClassVar[str] = "sentence"
    formula: ClassVar[str] = "sentence(q) = sentence(k)"
    degrees: ClassVar[str] = "tokens of the sentence"
    source: ClassVar[str] = "the sentence level of hierarchical encoders: HIBERT, arXiv 1905.06566"
    example: ClassVar[str] = "sentence()"

    needs = frozenset({"sentences"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((SameLabel(tokens.need("sentences", self)),))
