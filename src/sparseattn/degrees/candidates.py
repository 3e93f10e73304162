"""What a head may choose from: combinations of degrees, one for each ranking.

The pairs of a batch fall into **cells**: all pairs that the same candidates keep. A cell is told by
a level for each ranking: the first of its candidates that keeps the pair, or one more than there
are where none does. A combination keeps the cells of which some level is within its degree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from operator import or_

import torch
from torch import Tensor

from sparseattn.degrees.ranking import Ranking
from sparseattn.errors import PlanError
from sparseattn.pattern import Pattern
from sparseattn.patterns._mix import global_tokens
from sparseattn.patterns.self_ import Self
from sparseattn.rules import GlobalTokens
from sparseattn.tokens import TokenBatch

#: Combinations of all degrees, at most: what discretizing looks at for each head.
MOST = 20_000

#: What the choice of a head about the global tokens is called.
GLOBAL = "global"


@dataclass(frozen=True)
class Candidates:
    """The rankings, and the degrees to choose from in each.

    Attributes:
        rankings: The rankings, each with its degrees: ascending, the first 0.
        globals: Global tokens: kinds, `("cls",)`, or how many first tokens.
        off: Whether a head may do without the global tokens, so that it may keep nothing but each
            token's own place. Else every head has them.

    Raises:
        PlanError: There are too many combinations.
        PatternError: The global tokens are not possible.
    """

    rankings: tuple[Ranking, ...]
    globals: tuple[str, ...] | int = ("cls",)
    off: bool = True

    def __post_init__(self) -> None:
        """Checks the global tokens by a pattern, and the number of combinations."""
        _ = self.global_pattern
        if (count := math.prod(self.sizes)) > MOST:
            raise PlanError(f"{count:,} combinations of degrees for a head: the most is {MOST:,}")

    @classmethod
    def up_to(
        cls,
        rankings: Sequence[Ranking],
        longest: int,
        globals: tuple[str, ...] | int = ("cls",),
        off: bool = True,
    ) -> Candidates:
        """Candidates for texts of at most `longest` tokens, where a ranking names no degrees."""
        concrete = (replace(r, degrees=r.degrees or r.default_degrees(longest)) for r in rankings)
        return cls(tuple(concrete), globals, off)

    @property
    def degrees(self) -> tuple[tuple[float, ...], ...]:
        """The candidates of each ranking."""
        return tuple(ranking.degrees or () for ranking in self.rankings)

    @property
    def names(self) -> tuple[str, ...]:
        """What each choice is about: the rankings, and `global` where it is one."""
        return tuple(r.name for r in self.rankings) + ((GLOBAL,) if self._gated else ())

    @property
    def sizes(self) -> tuple[int, ...]:
        """Candidates of each choice; two for the global tokens: without, with."""
        return tuple(map(len, self.degrees)) + ((2,) if self._gated else ())

    @property
    def _gated(self) -> bool:
        return self.off and self.global_pattern is not None

    @property
    def combinations(self) -> Tensor:
        """Every combination: the index of a candidate for each choice.

        Shape: [combinations, choices], int64; the first all 0.
        """
        return torch.tensor(list(product(*map(range, self.sizes))))

    @property
    def global_pattern(self) -> Pattern | None:
        """The global tokens; None for none."""
        return next(iter(global_tokens(self.globals)), None)

    @property
    def needed(self) -> Pattern:
        """A pattern that needs all that is to be known of the tokens."""
        return self.pattern([len(degrees) - 1 for degrees in self.degrees] + [1] * self._gated)

    def pattern(self, combination: Sequence[int]) -> Pattern:
        """What a head with a combination allows; `self()` where it is nothing more."""
        parts = [
            ranking.pattern(degrees[index])
            for ranking, degrees, index in zip(
                self.rankings, self.degrees, combination, strict=False
            )
            if index
        ]
        if self.global_pattern is not None and (not self._gated or combination[-1]):
            parts.append(self.global_pattern)
        return reduce(or_, parts) if parts else Self()

    def cells(self, tokens: TokenBatch, layer: int = 0) -> Tensor:
        """The cell of each pair, as a number; `decode` gives its levels.

        The last number stands for pairs that every combination keeps: a token's own place, and the
        pairs of global tokens where these are no choice.

        Shape: [batch, length, length], int64; in [0, `cell_count`).
        """
        length, device = tokens.length, tokens.device
        cells = torch.zeros(tokens.batch, length, length, dtype=torch.long, device=device)
        for ranking, degrees in zip(self.rankings, self.degrees, strict=True):
            ranks = ranking.ranks(tokens, layer, degrees[-1])
            known = torch.tensor(degrees, dtype=ranks.dtype, device=device)
            cells = cells * (len(degrees) + 1) + torch.searchsorted(known, ranks.contiguous())
        chosen = self.global_mask(tokens)
        either = chosen[:, :, None] | chosen[:, None, :]
        if self._gated:
            cells = cells * 3 + torch.where(either, 1, 2)
        own = torch.eye(length, dtype=torch.bool, device=device)
        return cells.masked_fill(own if self._gated else own | either, self.cell_count - 1)

    def cells_of(self, tokens: TokenBatch, layers: Sequence[int]) -> Iterator[Tensor]:
        """The `cells` of each of some layers; computed once where all layers share them."""
        shared = None if self.needed.varies_by_layer else self.cells(tokens)
        for layer in layers:
            yield self.cells(tokens, layer) if shared is None else shared

    @property
    def cell_count(self) -> int:
        """How many numbers of cells there are."""
        return math.prod(size + 1 for size in self.sizes) + 1

    def decode(self, cells: Tensor) -> Tensor:
        """The levels of cells: all 0 for those that every combination keeps.

        Shape: [cells] to [cells, choices], int64.
        """
        levels, rest = [], cells
        for size in reversed(self.sizes):
            levels.append(rest % (size + 1))
            rest = rest // (size + 1)
        always = (cells == self.cell_count - 1)[:, None]
        return torch.stack(levels[::-1], dim=1).masked_fill(always, 0)

    def keeps(self, levels: Tensor) -> Tensor:
        """Which combination keeps which cell.

        Shape: [cells, choices] to [combinations, cells], bool.
        """
        return (levels[None] <= self.combinations[:, None]).any(dim=2)

    def global_mask(self, tokens: TokenBatch) -> Tensor:
        """Which tokens are global. Shape: [batch, length], bool."""
        if self.global_pattern is None:
            return torch.zeros_like(tokens.valid)
        parts = self.global_pattern.rule(tokens).parts
        masks = [part.tokens for part in parts if isinstance(part, GlobalTokens)]
        return torch.stack(masks).any(dim=0) & tokens.valid
