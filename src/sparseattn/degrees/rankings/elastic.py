"""Keys by their distance, as a share of the text's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import Ranking
from sparseattn.degrees.rankings.neighbor import NeighborRanking

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch


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
        import torch

        place = torch.arange(tokens.length, device=tokens.device)
        distance = (place[:, None] - place).abs()[None].double()
        lengths = tokens.lengths.clamp(min=1)[:, None, None]
        # `elastic` rounds halves up: it reaches d from this share on, or from the next number on.
        share = ((distance - 0.5) / lengths).clamp(min=0)
        reached = torch.floor(lengths * share + 0.5) >= distance
        return torch.where(reached, share, share.nextafter(torch.ones_like(share)))
