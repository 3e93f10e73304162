"""The radii that a head may choose from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from sparseattn.errors import PlanError
from sparseattn.pattern import Pattern
from sparseattn.patterns._mix import global_tokens
from sparseattn.patterns.elastic import Elastic
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.rules import GlobalTokens
from sparseattn.tokens import TokenBatch

__all__ = ["MOST", "Candidates"]

#: Candidates, at most; the knapsack's time grows with them. So many powers of two reach across a
#: million tokens.
MOST = 24


@dataclass(frozen=True)
class Candidates:
    """Radii in ascending order, the first of them 0.

    Attributes:
        entries: In tokens, or as shares of a text's length.
        elastic: Whether they are shares.
        globals: Global tokens of every head: kinds, `("cls",)`, or how many first tokens.
    """

    entries: tuple[float, ...]
    elastic: bool = False
    globals: tuple[str, ...] | int = ("cls",)

    def __post_init__(self) -> None:
        """Checks the entries, and by a pattern the global tokens."""
        typed: tuple[object, ...] = self.entries
        if odd := [entry for entry in typed if not isinstance(entry, Real)]:
            raise PlanError(f"candidates {list(typed)}: {odd[0]!r} is not a number")
        entries = tuple(float(e) if self.elastic else e for e in self.entries)
        kind = "shares of the length from 0 to 1" if self.elastic else "whole numbers of tokens"
        fits = all(0 <= e <= 1 if self.elastic else _is_count(e) for e in entries)
        ascending = list(entries) == sorted(set(entries))
        if not fits or not ascending or len(entries) < 2 or entries[0] != 0:
            raise PlanError(
                f"candidates {list(self.entries)}: expected ascending {kind}, at least two, the "
                "first 0"
            )
        if len(entries) > MOST:
            raise PlanError(f"{len(entries)} candidates: the most is {MOST}")
        object.__setattr__(self, "entries", entries)
        self.pattern(0)

    @classmethod
    def up_to(
        cls,
        longest: int,
        *,
        max_radius: int | None = None,
        elastic: bool = False,
        globals: tuple[str, ...] | int = ("cls",),
    ) -> Candidates:
        """0 and the powers of two, up to a radius that reaches across the longest text.

        `longest` and `max_radius` are in tokens. The smallest elastic share is a radius of 1 in the
        longest text.

        >>> Candidates.up_to(25).entries
        (0, 1, 2, 4, 8, 16, 32)
        """
        reach = max(1, longest - 1)
        powers = [2**power for power in range(math.ceil(math.log2(reach)) + 1)]
        if max_radius is not None:
            powers = sorted({min(radius, max(1, max_radius)) for radius in powers})
        if not elastic:
            return cls((0, *powers), globals=globals)
        shares = {min(1.0, round(radius / longest, 4)) for radius in powers}
        return cls((0, *sorted(shares)), elastic=True, globals=globals)

    def __len__(self) -> int:
        """Number of radii."""
        return len(self.entries)

    def window(self, index: int) -> Pattern:
        """The window of an entry, without global tokens."""
        entry = self.entries[index]
        return Elastic(entry) if self.elastic else Neighbor(int(entry))

    @property
    def global_pattern(self) -> Pattern | None:
        """The global tokens; None for none."""
        return next(iter(global_tokens(self.globals)), None)

    def pattern(self, index: int) -> Pattern:
        """What a head with an entry allows."""
        return self.with_globals(self.window(index))

    def with_globals(self, window: Pattern) -> Pattern:
        """A window together with the global tokens."""
        return window if self.global_pattern is None else window | self.global_pattern

    def radii(self, tokens: TokenBatch) -> Tensor:
        """The radius of each entry in each text, in tokens.

        Shape: [batch, entries], int64; [1, entries] where all texts share them.
        """
        entries = torch.tensor(self.entries, dtype=torch.float64, device=tokens.device)
        if not self.elastic:
            return entries.long()[None]
        return torch.floor(tokens.lengths[:, None].double() * entries + 0.5).long()

    def global_mask(self, tokens: TokenBatch) -> Tensor:
        """Which tokens are global. Shape: [batch, length], bool."""
        if self.global_pattern is None:
            return torch.zeros_like(tokens.valid)
        parts = self.global_pattern.rule(tokens).parts
        masks = [part.tokens for part in parts if isinstance(part, GlobalTokens)]
        return torch.stack(masks).any(dim=0) & tokens.valid


def _is_count(entry: object) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0
