"""A radius for each token position, drawn from a distribution of radii."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least, listed, refused, whole_numbers
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch

#: Positions that one stratified sample covers.
_BLOCK = 32


@dataclass(frozen=True)
class Irregular(Pattern):
    """Tokens within a radius that depends on the query's place in the text.

    The radii of each 32 consecutive places are a stratified sample of the distribution: of 32
    places, a weight of 1/4 gives 8, in random order. A place has the same radius in a text of any
    length. The ensemble of irregular graphs with a given degree distribution is what LDPC codes
    draw theirs from.

    Args:
        radii: One-sided and inclusive, in tokens, ascending.
        weights: How often each radius is drawn, in proportion; at least one is above 0.
        seed: Another seed draws another order.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> pattern = parse("irregular(radii=[0, 2], weights=[0.5, 0.5])")
    >>> print(pattern.rule(TokenBatch.of_lengths(5)).dense(5).int()[0, 0])
    tensor([[1, 0, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [1, 1, 1, 1, 1],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1]], dtype=torch.int32)
    """

    radii: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int = 0

    name: ClassVar[str] = "irregular"
    formula: ClassVar[str] = "|q - k| <= R(q), R drawn from the weights"
    degrees: ClassVar[str] = "2 R(q) + 1"
    source: ClassVar[str] = "irregular LDPC codes: Luby et al., IEEE Trans. IT 47(2), 2001; ours"
    example: ClassVar[str] = "irregular(radii=[0, 1, 4], weights=[0.5, 0.25, 0.25])"

    def __post_init__(self) -> None:
        at_least(self, seed=0)
        radii, weights = whole_numbers(self, "radii"), listed(self, "weights")
        if not radii or list(radii) != sorted(set(radii)):
            raise refused(self, "radii", "must be ascending whole numbers >= 0")
        numbers = all(isinstance(w, int | float) and not isinstance(w, bool) for w in weights)
        if not numbers or not all(0 <= w < float("inf") for w in weights) or not sum(weights):
            raise refused(self, "weights", "must be numbers >= 0, not all of them 0")
        if len(weights) != len(radii):
            raise refused(self, "weights", f"must be as many as the radii, {len(radii)}")
        object.__setattr__(self, "weights", tuple(map(float, weights)))

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        drawn = _drawn(self.seed, tokens.length)
        edges = torch.tensor(self.weights, dtype=torch.float64).cumsum(0)
        last = max(index for index, weight in enumerate(self.weights) if weight)
        chosen = torch.searchsorted(edges / edges[-1], drawn, right=True).clamp(max=last)
        radius = torch.tensor(self.radii)[chosen].to(tokens.device)
        return Rule((Band(radius[tokens.positions.clamp(min=0)]),))


@lru_cache(maxsize=1024)
def _drawn(seed: int, length: int) -> Tensor:
    """Numbers in [0, 1), a stratified sample in each block. Shape: [length], float64."""
    blocks = -(-length // _BLOCK)
    # NumPy promises these raw bits for good, but not what its distributions make of them.
    bits = np.random.PCG64(np.random.SeedSequence([seed]))
    raw = bits.random_raw(2 * blocks * _BLOCK).reshape(blocks, 2, _BLOCK)
    strata = raw[:, 0].argsort(axis=1, kind="stable")
    within = (raw[:, 1] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(((strata + within) / _BLOCK).reshape(-1)[:length])
