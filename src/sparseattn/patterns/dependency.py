"""Edges of a dependency parse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.rules import Part, Rule, SameLabel
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class Links(Part):
    """Pairs in which the one token asks for the label that the other one has.

    Answers a tile from two labels a token, so that no length x length tensor is kept.

    Attributes:
        wanted: The label that each token asks for, -1 for none. Shape: [batch, length], int64.
        labels: The label of each token, -1 for none. Shape: [batch, length], int64.
    """

    wanted: Tensor
    labels: Tensor

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        """See `Part.allowed`."""
        up = (self.wanted[:, q, None] == self.labels[:, None, k]) & (self.wanted[:, q, None] >= 0)
        down = (self.labels[:, q, None] == self.wanted[:, None, k]) & (self.labels[:, q, None] >= 0)
        return (up | down)[:, None]


@dataclass(frozen=True)
class Dependency(Pattern):
    """Tokens whose words are head and child of each other, or the same word.

    Both directions are allowed, and every subword of a word stands for the word. Sentences are
    parsed apart, and so are the two texts of a pair, so no edge crosses them; special tokens have
    no word and get none (join `global(cls)` for those).

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> real = torch.ones(1, 5, dtype=torch.bool)
    >>> words = torch.tensor([[-1, 0, 1, 1, 2]])  # [CLS] she un ##packs boxes
    >>> heads = torch.tensor([[-1, 1, 1, 1, 1]])
    >>> tokens = TokenBatch(real, words=words, heads=heads)
    >>> print(parse("dependency()").rule(tokens).dense(5).int()[0, 0])
    tensor([[0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 1, 1, 1],
            [0, 1, 1, 1, 1],
            [0, 0, 1, 1, 1]], dtype=torch.int32)
    """

    name: ClassVar[str] = "dependency"
    formula: ClassVar[str] = (
        "head(word(q)) = word(k) or word(q) = head(word(k)) or word(q) = word(k)"
    )
    degrees: ClassVar[str] = "about 3 words: the word, its head, its children"
    source: ClassVar[str] = "syntax masks: arXiv 2210.03841; the joining of subwords is ours"
    example: ClassVar[str] = "dependency()"

    @property
    def needs(self) -> frozenset[str]:
        """`words` and `heads`."""
        return frozenset({"words", "heads"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        """See `Pattern.rule`."""
        words, heads = tokens.need("words", self), tokens.need("heads", self)
        return Rule((SameLabel(words), Links(wanted=heads, labels=words)))
