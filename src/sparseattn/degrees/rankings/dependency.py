"""Keys along the dependency parse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class DependencyRanking(Ranking):
    """Keys by their words' distance in the dependency tree; a degree is how many edges."""

    name: ClassVar[str] = "dependency"

    def default_degrees(self, longest: int) -> tuple[float, ...]:  # noqa: ARG002
        """0 to 3."""
        return (0, 1, 2, 3)

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.dependency import Dependency

        return Dependency(int(degree))

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:  # noqa: ARG002
        """See `Ranking.ranks`: 1 for the same word and an edge away, as `dependency()` has it."""
        from sparseattn.patterns.dependency import tree_distance

        return tree_distance(tokens, int(most), self.pattern(most)).clamp(min=1)
