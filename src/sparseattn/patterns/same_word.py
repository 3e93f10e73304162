"""The subwords of a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.rules import Rule, SameLabel
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class SameWord(Pattern):
    """Tokens of the same word. Special tokens belong to none.

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> real = torch.ones(1, 4, dtype=torch.bool)
    >>> tokens = TokenBatch(real, words=torch.tensor([[-1, 0, 0, 1]]))
    >>> print(parse("same_word()").rule(tokens).dense(4).int()[0, 0])
    tensor([[0, 0, 0, 0],
            [0, 1, 1, 0],
            [0, 1, 1, 0],
            [0, 0, 0, 1]], dtype=torch.int32)
    """

    name: ClassVar[str] = "same_word"
    formula: ClassVar[str] = "word(q) = word(k)"
    degrees: ClassVar[str] = "tokens of the word"
    source: ClassVar[str] = "a part of our own: what joins subwords in dependency()"
    example: ClassVar[str] = "same_word()"

    needs = frozenset({"words"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((SameLabel(tokens.need("words", self)),))
