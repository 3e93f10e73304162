"""Lexically similar tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least, flag
from sparseattn.patterns._nearest import nearest_by_piece, unit_vectors
from sparseattn.rules import Keys, Rule
from sparseattn.tokens import TokenBatch

#: Queries compared at a time: bounds the memory to QUERIES x length cosines a text.
QUERIES = 256


@dataclass(frozen=True)
class Similarity(Pattern):
    """The `k` tokens of the text whose input embeddings are nearest by cosine.

    A token is not its own neighbour, but another occurrence of the same word piece is one, and the
    nearest there can be (cosine 1): repeated words are connected first, on purpose. Special tokens
    and padding neither ask nor are found. Ties go to the earlier token. Only the embeddings of the
    batch's tokens are read, never the whole vocabulary; they are the model's input embeddings
    without positions, as they are when the plan is applied.

    Args:
        k: How many others; a text with fewer gives all of them.
        other_sentence: Whether only tokens of other sentences are found; of a pair of texts, also
            those of the other text. Tokens of no sentence find none.

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> tokens = TokenBatch(
    ...     torch.ones(1, 5, dtype=torch.bool),
    ...     ids=torch.tensor([[0, 1, 2, 3, 1]]),
    ...     special=torch.tensor([[True, False, False, False, False]]),
    ...     embedding=torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]),
    ... )
    >>> print(parse("similarity(k=1)").rule(tokens).dense(5).int()[0, 0])
    tensor([[0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1],
            [0, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 1, 0, 0, 0]], dtype=torch.int32)
    """

    k: int
    other_sentence: bool = False

    name: ClassVar[str] = "similarity"
    formula: ClassVar[str] = "k among the top k of cos(E[q], E[j]) over j != q"
    degrees: ClassVar[str] = "k + 1"
    source: ClassVar[str] = "lexical similarity masks: arXiv 2210.03841; top-k by cosine is ours"
    example: ClassVar[str] = "similarity(k=2)"

    def __post_init__(self) -> None:
        at_least(self, k=1)
        flag(self, "other_sentence")

    @property
    def needs(self) -> frozenset[str]:
        needs = frozenset({"ids", "special", "embedding"})
        return needs | {"sentences"} if self.other_sentence else needs

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        embedding = tokens.need("embedding", self).detach()
        ids = tokens.need("ids", self).to(tokens.device)
        lexical = tokens.valid & ~tokens.need("special", self)
        if not self.other_sentence:
            return Rule((Keys(nearest_by_piece(embedding, ids, lexical, self.k)),))
        sentences = tokens.need("sentences", self)
        lexical = lexical & (sentences >= 0)
        vectors = unit_vectors(embedding, ids)
        every = torch.arange(tokens.length, device=tokens.device)
        parts = [
            nearest(vectors, lexical, queries, min(self.k, tokens.length), sentences)
            for queries in torch.split(every, QUERIES)
        ]
        return Rule((Keys(torch.cat(parts, dim=1)),))


def nearest(vectors: Tensor, lexical: Tensor, queries: Tensor, k: int, sentences: Tensor) -> Tensor:
    """Finds the nearest tokens of other sentences for each query.

    Args:
        vectors: Unit vectors. Shape: [batch, length, width], float64 (or float32).
        lexical: Which tokens may ask and be found. Shape: [batch, length], bool.
        queries: Indices of the queries. Shape: [queries], int64.
        k: How many to find, at most `length`.
        sentences: Of each token; a query finds none of its own. Shape: [batch, length], int64.

    Returns:
        Indices, -1 for none. Shape: [batch, queries, k], int64.
    """
    cosines = ((vectors[:, queries] @ vectors.mT) * 2**24).round().long()
    index = torch.arange(lexical.shape[1], device=lexical.device)
    possible = lexical[:, None, :] & lexical[:, queries, None]
    possible &= sentences[:, queries, None] != sentences[:, None, :]
    ranks = cosines * len(index) - index  # no two alike: topk leaves the order of ties open
    keys = ranks.masked_fill(~possible, torch.iinfo(torch.int64).min).topk(k).indices
    return keys.masked_fill(~possible.gather(-1, keys), -1)
