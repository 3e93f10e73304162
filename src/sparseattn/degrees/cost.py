"""How many pairs each radius allows, counted exactly and without building a mask.

A head with radius r and global tokens G allows, in a text of n tokens,

    n^2 - (n - |G|)^2 + W(r),

where W(r) counts the pairs of tokens outside G at most r apart. The number of such pairs at one
distance is an autocorrelation, so all distances of a text cost one Fourier transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.errors import PlanError
from sparseattn.tokens import TokenBatch

__all__ = ["Costs", "allowed_pairs", "within"]


def within(tokens: Tensor) -> Tensor:
    """Counts the ordered pairs of chosen tokens that are at most so far apart.

    Shape: [batch, length], bool to int64; element d counts the pairs with distance <= d.
    """
    length = tokens.shape[1]
    spectrum = torch.fft.rfft(tokens.double(), n=2 * length)
    at = torch.fft.irfft(spectrum.abs() ** 2, n=2 * length)[:, :length].round().long()
    at[:, 1:] *= 2
    counts: Tensor = at.cumsum(dim=1)
    return counts


def allowed_pairs(candidates: Candidates, tokens: TokenBatch, window: int | None = None) -> Tensor:
    """Counts the pairs of real tokens that each radius allows.

    Windows are clipped at the borders; a token's own place, the windows and the rows and columns of
    global tokens are counted once where they overlap. `window` is a radius that the layer never
    exceeds, global tokens included. Shape: [batch, entries], int64.
    """
    if tokens.length == 0:
        return torch.zeros(tokens.batch, len(candidates), dtype=torch.long)
    every = within(tokens.valid)
    free = within(tokens.valid & ~candidates.global_mask(tokens))
    limit = tokens.length - 1 if window is None else min(window, tokens.length - 1)
    radii = candidates.radii(tokens).clamp(max=limit).expand(tokens.batch, -1)
    return (every - free)[:, limit, None] + free.gather(1, radii)


@dataclass(frozen=True, eq=False)
class Costs:
    """What each radius costs on some texts: the unit of a budget.

    Attributes:
        candidates: The radii and global tokens.
        allowed: Pairs that one head of a layer allows with each radius, summed over the texts.
            Shape: [layers, entries], float64.
        full: Pairs that one head of a layer allows where the layer is dense. Shape: [layers],
            float64.
        heads: Heads of each layer.
        windows: A radius that each layer never exceeds; None for no limit.
        dense: Layers that stay dense.
        lengths: Real tokens of each text. Shape: [texts], int64.
    """

    candidates: Candidates
    allowed: Tensor
    full: Tensor
    heads: tuple[int, ...]
    windows: tuple[int | None, ...]
    dense: tuple[int, ...]
    lengths: Tensor

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        batches: Sequence[TokenBatch],
        heads: Sequence[int],
        windows: Sequence[int | None],
        dense: Sequence[int] = (),
    ) -> Costs:
        """Counts over batches of texts; a PlanError where there is no text."""
        kinds = list(dict.fromkeys(windows))
        allowed = torch.zeros(len(kinds), len(candidates), dtype=torch.float64)
        full = torch.zeros(len(kinds), dtype=torch.float64)
        for tokens in batches:
            pairs = within(tokens.valid)
            for index, window in enumerate(kinds):
                allowed[index] += allowed_pairs(candidates, tokens, window).sum(dim=0).cpu()
                limit = tokens.length - 1 if window is None else min(window, tokens.length - 1)
                full[index] += float(pairs[:, limit].sum())
        lengths = torch.cat([torch.zeros(0).long(), *(tokens.lengths.cpu() for tokens in batches)])
        if not lengths.any():
            raise PlanError("a sparsity is counted over texts, and there is none")
        which = [kinds.index(window) for window in windows]
        shape = tuple(heads), tuple(windows)
        return cls(candidates, allowed[which], full[which], *shape, tuple(dense), lengths)

    @property
    def learned(self) -> list[int]:
        """Layers that are not left dense."""
        return [layer for layer in range(len(self.heads)) if layer not in self.dense]

    @property
    def total(self) -> float:
        """Pairs of real tokens, summed over texts, layers and heads."""
        return float((self.lengths**2).sum()) * sum(self.heads)

    @property
    def fixed(self) -> float:
        """The share of all pairs that the dense layers allow."""
        return float(sum(self.full[layer] * self.heads[layer] for layer in self.dense)) / self.total

    @property
    def table(self) -> Tensor:
        """The share of all pairs that a head of each learned layer allows with each radius.

        Shape: [learned layers, entries], float64.
        """
        return self.allowed[self.learned] / self.total

    def items(self, groups: int) -> NDArray[np.float64]:
        """The table with a row for each choice that is made: a head, or the heads of a layer.

        Shape: [learned layers x groups, entries]; `groups` is the heads of a layer, or 1.
        """
        heads = np.array([self.heads[layer] for layer in self.learned])
        times = heads if groups == 1 else np.ones_like(heads)
        return np.repeat(self.table.numpy() * times[:, None], groups, axis=0)

    def budget(self, sparsity: float) -> float:
        """The share of all pairs that is left to the learned layers at a sparsity."""
        return 1 - sparsity - self.fixed

    def density(self, chances: Tensor) -> Tensor:
        """The expected density, a scalar: exact, linear in the chances, dense layers included.

        Shape of the chances: [learned layers, heads or 1, entries].
        """
        times = torch.tensor([self.heads[layer] for layer in self.learned], dtype=chances.dtype)
        times = times if chances.shape[1] == 1 else torch.ones_like(times)
        weights = self.table.to(chances) * times.to(chances.device)[:, None]
        return (chances * weights[:, None, :]).sum() + self.fixed

    @property
    def highest(self) -> float:
        """The highest sparsity that these texts allow: every head with radius 0."""
        return 1 - self._with_entry(0)

    @property
    def lowest(self) -> float:
        """The lowest sparsity that the candidates allow: every head with the largest radius."""
        return 1 - self._with_entry(-1)

    def _with_entry(self, entry: int) -> float:
        heads = torch.tensor([self.heads[layer] for layer in self.learned], dtype=torch.float64)
        return float((self.table[:, entry] * heads).sum()) + self.fixed

    def check(self, sparsity: float) -> None:
        """Raises a PlanError that names the highest or lowest sparsity if one is out of reach."""
        check_sparsity(sparsity)
        if sparsity > self.highest + 1e-9:
            # Rounded down, so that the number that is named can be reached.
            raise PlanError(
                f"sparsity {sparsity:g} cannot be reached on these texts: every token keeps itself "
                f"and global tokens keep their rows and columns, so the highest is "
                f"{int(self.highest * 1000) / 1000:.3f}"
            )
        if sparsity < self.lowest - 1e-9:
            raise PlanError(
                f"sparsity {sparsity:g} is below what the largest candidate radius gives on these "
                f"texts: the lowest is {self.lowest:.3f}"
            )


def check_sparsity(sparsity: float) -> None:
    """Raises a PlanError for what can be the sparsity of no plan."""
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not number or not 0 <= sparsity <= 1:
        raise PlanError(f"sparsity {sparsity!r} is not a number from 0 to 1")
