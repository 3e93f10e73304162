"""Keys in a random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking
from sparseattn.degrees.rankings.similarity import ranks_of_lists

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch

#: Keys that are drawn and put in an order, of which a head may keep the first ones.
DRAWN = 16


@dataclass(frozen=True)
class RandomRanking(Ranking):
    """Keys in a seeded order of their own in each layer; a degree is how many."""

    name: ClassVar[str] = "random"

    def default_degrees(self, longest: int) -> tuple[float, ...]:  # noqa: ARG002
        """0 to 8."""
        return (0, 1, 2, 4, 8)

    def pattern(self, degree: float) -> Pattern:
        """See `Ranking.pattern`."""
        from sparseattn.patterns.random_ import Random

        return Random(int(degree), drawn=max(DRAWN, int((self.degrees or (0,))[-1])))

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:
        """See `Ranking.ranks`."""
        return ranks_of_lists(self.pattern(most).rule(tokens, layer), int(most))
