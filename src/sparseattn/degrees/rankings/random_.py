"""Keys in a random order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import ListedRanking

if TYPE_CHECKING:
    from sparseattn.pattern import Pattern

#: Keys that are drawn and put in an order, of which a head may keep the first ones.
DRAWN = 16


@dataclass(frozen=True)
class RandomRanking(ListedRanking):
    """Keys in a seeded order of their own in each layer; a degree is how many."""

    name: ClassVar[str] = "random"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.random_ import Random

        return Random(int(degree), drawn=max(DRAWN, int((self.degrees or (0,))[-1])))
