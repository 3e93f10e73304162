"""Keys by their distance: in tokens, as a share of the text's length, along the parse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class NeighborRanking(Ranking):
    """Keys by their distance in the text: a degree is the radius of a window.

    >>> NeighborRanking().default_degrees(25)
    (0, 1, 2, 4, 8, 16, 32)
    """

    name: ClassVar[str] = "neighbor"
    everything: ClassVar[bool] = True

    def default_degrees(self, longest: int) -> tuple[float, ...]:
        """0 and the powers of two, up to a radius that reaches across the longest text."""
        reach = max(1, longest - 1)
        return (0, *(2**power for power in range(math.ceil(math.log2(reach)) + 1)))

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.neighbor import Neighbor

        return Neighbor(int(degree))

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:  # noqa: ARG002
        """See `Ranking.ranks`: the distance, 0 for the token itself."""
        return _distance(tokens)


@dataclass(frozen=True)
class ElasticRanking(Ranking):
    """Windows whose radius is a share of the text's length, so that the sparsity varies little."""

    name: ClassVar[str] = "elastic"
    everything: ClassVar[bool] = True
    whole: ClassVar[bool] = False

    def default_degrees(self, longest: int) -> tuple[float, ...]:
        """The radii of `neighbor` in the longest text, as shares of it."""
        radii = NeighborRanking().default_degrees(longest)
        return tuple(sorted({min(1.0, round(radius / longest, 4)) for radius in radii}))

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.elastic import Elastic

        return Elastic(degree)

    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:  # noqa: ARG002
        """See `Ranking.ranks`: the smallest share whose window reaches the key."""
        distance = _distance(tokens).double()
        lengths = tokens.lengths.clamp(min=1)[:, None, None]
        # `elastic` rounds halves up: it reaches d from this share on, or from the next number on.
        share = ((distance - 0.5) / lengths).clamp(min=0)
        reached = (lengths * share + 0.5).floor() >= distance
        return share.where(reached, share.nextafter(share.new_ones(())))


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


def _distance(tokens: TokenBatch) -> Tensor:
    """Between places in the text. Shape: [1, length, length], int64."""
    import torch

    place = torch.arange(tokens.length, device=tokens.device)
    return (place[:, None] - place).abs()[None]
