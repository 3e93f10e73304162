"""Keys in an order that a pattern lists one by one: drawn at random, or by lexical similarity."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch

#: Keys that are drawn and put in an order, of which a head may keep the first ones.
_DRAWN = 16


class _Listed(Ranking, ABC):
    """An order whose pattern lists the keys of each query one by one, the first ones first."""

    def default_degrees(self, longest: int) -> tuple[float, ...]:  # noqa: ARG002
        """0 to 8."""
        return (0, 1, 2, 4, 8)

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:
        """See `Ranking.ranks`: from 1."""
        import torch

        from sparseattn.rules import Keys

        (keys,) = self.pattern(most).rule(tokens, layer).parts
        assert isinstance(keys, Keys)
        index, never = keys.index, int(most) + 1
        batch, length, listed = index.shape
        ranks = torch.full((batch, length, length + 1), never, device=index.device)
        order = torch.arange(1, listed + 1, device=index.device).expand(batch, length, listed)
        return ranks.scatter_(2, index.masked_fill(index < 0, length), order)[..., :length]


@dataclass(frozen=True)
class RandomRanking(_Listed):
    """Keys in a seeded order of their own in each layer; a degree is how many."""

    name: ClassVar[str] = "random"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.random_ import Random

        return Random(int(degree), drawn=max(_DRAWN, int((self.degrees or (0,))[-1])))


@dataclass(frozen=True)
class SimilarityRanking(_Listed):
    """Keys by the cosine of their input embedding with the query's; a degree is how many."""

    name: ClassVar[str] = "similarity"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.similarity import Similarity

        return Similarity(int(degree))


@dataclass(frozen=True)
class OtherSentenceRanking(_Listed):
    """The order of `similarity`, of keys in other sentences alone."""

    name: ClassVar[str] = "other_sentence_similarity"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.similarity import Similarity

        return Similarity(int(degree), other_sentence=True)
