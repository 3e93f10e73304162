"""Keys by lexical similarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.rules import Rule
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
        from sparseattn.patterns.similarity import Similarity

        return Similarity(int(degree))

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:
        """See `Ranking.ranks`."""
        return ranks_of_lists(self.pattern(most).rule(tokens, layer), int(most))


def ranks_of_lists(rule: Rule, most: int) -> Tensor:
    """The ranks of keys that are listed in order.

    Args:
        rule: Keys of each query, in order, as its only part.
        most: How many may be listed.

    Returns:
        From 1; `most` + 1 for keys not listed. Shape: [batch or 1, length, length], int64.
    """
    import torch

    from sparseattn.rules import Keys

    (keys,) = rule.parts
    assert isinstance(keys, Keys)
    index = keys.index
    batch, length, listed = index.shape
    ranks = torch.full((batch, length, length + 1), most + 1, device=index.device)
    order = torch.arange(1, listed + 1, device=index.device).expand(batch, length, listed)
    return ranks.scatter_(2, index.masked_fill(index < 0, length), order)[..., :length]
