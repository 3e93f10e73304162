"""Edges of a dependency parse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Pairs, Part, Rule, SameLabel
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
        up = (self.wanted[:, q, None] == self.labels[:, None, k]) & (self.wanted[:, q, None] >= 0)
        down = (self.labels[:, q, None] == self.wanted[:, None, k]) & (self.labels[:, q, None] >= 0)
        return (up | down)[:, None]


@dataclass(frozen=True)
class Dependency(Pattern):
    """Tokens whose words are at most `hops` edges of the dependency tree apart, or the same word.

    With one hop, head and child of each other. Both directions are allowed, and every subword of a
    word stands for the word. Sentences are parsed apart, and so are the two texts of a pair, so no
    edge crosses them; special tokens have no word and get none (join `global(cls)` for those).

    Args:
        hops: Edges between two words, at most. More than one takes a mask of length x length.

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

    hops: int = 1

    name: ClassVar[str] = "dependency"
    formula: ClassVar[str] = "tree distance of word(q) and word(k) <= hops"
    degrees: ClassVar[str] = "with one hop about 3 words: the word, its head, its children"
    source: ClassVar[str] = "syntax masks: arXiv 2210.03841; the joining of subwords is ours"
    example: ClassVar[str] = "dependency()"

    def __post_init__(self) -> None:
        at_least(self, hops=1)

    needs = frozenset({"words", "heads"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        if self.hops == 1:
            return _edges(tokens, self)
        return Rule((Pairs((tree_distance(tokens, self.hops, self) <= self.hops)[:, None]),))


def _edges(tokens: TokenBatch, who: Pattern) -> Rule:
    words, heads = tokens.need("words", who), tokens.need("heads", who)
    return Rule((SameLabel(words), Links(wanted=heads, labels=words)))


def tree_distance(tokens: TokenBatch, most: int, who: Pattern) -> Tensor:
    """Edges between the words of two tokens in the dependency tree.

    Args:
        tokens: The batch.
        most: The largest distance that is told.
        who: Who asks, for the message where a batch carries no parse.

    Returns:
        0 within a word; `most` + 1 for what is farther, and for tokens without a word.
        Shape: [batch, length, length], int64.
    """
    words = tokens.need("words", who)
    near = _edges(tokens, who).dense(tokens.length, tokens.device)[:, 0]
    same = (words[:, :, None] == words[:, None, :]) & (words[:, :, None] >= 0)
    distance = torch.where(near, 1, most + 1).masked_fill(same, 0)
    reach, step = near.float(), near.float()
    for hops in range(2, most + 1):
        reach = (reach @ step).clamp(max=1)
        distance = torch.where((reach > 0) & (distance > hops), hops, distance)
    return distance
