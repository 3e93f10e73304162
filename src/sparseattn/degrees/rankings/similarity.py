"""Keys by lexical similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseattn.degrees.ranking import Ranking
from sparseattn.pattern import Pattern
from sparseattn.patterns.similarity import Similarity
from sparseattn.rules import Keys
from sparseattn.tokens import TokenBatch

__all__ = ["SimilarityRanking", "ranks_of_lists"]


@dataclass(frozen=True)
class SimilarityRanking(Ranking):
    """Keys by the cosine of their input embedding with the query's; a degree is how many."""

    name: ClassVar[str] = "similarity"

    def default_degrees(self, longest: int) -> tuple[float, ...]:  # noqa: ARG002
        """0 to 8."""
        return (0, 1, 2, 4, 8)

    def pattern(self, degree: float) -> Pattern:
        """See `Ranking.pattern`."""
        return Similarity(int(degree))

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:
        """See `Ranking.ranks`."""
        (keys,) = self.pattern(most).rule(tokens, layer).parts
        assert isinstance(keys, Keys)
        return ranks_of_lists(keys.index, int(most))


def ranks_of_lists(index: Tensor, most: int) -> Tensor:
    """The ranks of keys that are listed in order.

    Args:
        index: Keys of each query, -1 for none. Shape: [batch or 1, length, any], int64.
        most: How many may be listed.

    Returns:
        From 1; `most` + 1 for keys not listed. Shape: [batch or 1, length, length], int64.
    """
    batch, length, listed = index.shape
    ranks = torch.full((batch, length, length + 1), most + 1, device=index.device)
    order = torch.arange(1, listed + 1, device=index.device).expand(batch, length, listed)
    return ranks.scatter_(2, index.masked_fill(index < 0, length), order)[..., :length]
