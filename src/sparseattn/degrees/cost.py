"""How many pairs each combination of degrees allows: counted once on a sample of texts, exactly.

All that a budget needs of the texts is how many pairs of real tokens each cell holds (see
`sparseattn.degrees.candidates`). The expected density of a head is then the sum over cells of their
pairs times the chance that they are allowed, and a combination costs the pairs of the cells that it
keeps: both exact, the second in whole pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.distribution import log_missed
from sparseattn.errors import PlanError
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class Costs:
    """What the candidates cost on some texts: the unit of a budget.

    Attributes:
        candidates: What a head chooses from.
        numbers: The cells that occur, in the order of `Candidates.cells`. Shape: [cells], int64.
        pairs: Pairs of real tokens of each cell that a head of each layer may attend over, summed
            over the texts. Shape: [layers, cells], float64.
        heads: Heads of each layer.
        windows: A radius that each layer never exceeds; None for no limit.
        dense: Layers that stay dense.
        lengths: Real tokens of each text. Shape: [texts], int64.
    """

    candidates: Candidates
    numbers: Tensor
    pairs: Tensor
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
        # Layers that share their cells are counted once.
        varies = candidates.needed.varies_by_layer
        keys = [(window, layer if varies else 0) for layer, window in enumerate(windows)]
        counts = {key: torch.zeros(candidates.cell_count) for key in keys}
        for tokens in batches:
            real = tokens.valid[:, :, None] & tokens.valid[:, None, :]
            place = torch.arange(tokens.length, device=tokens.device)
            distance = (place[:, None] - place).abs()
            cells = {at: candidates.cells(tokens, at) for at in {layer for _, layer in counts}}
            for (window, layer), count in counts.items():
                inside = real if window is None else real & (distance <= window)
                found = torch.bincount(cells[layer][inside], minlength=candidates.cell_count)
                counts[window, layer] = count.double() + found.cpu()
        lengths = torch.cat([torch.zeros(0).long(), *(tokens.lengths.cpu() for tokens in batches)])
        if not lengths.any():
            raise PlanError("a sparsity is counted over texts, and there is none")
        table = torch.stack([counts[key] for key in keys])
        occur = table.any(dim=0).nonzero().flatten()
        shape = tuple(heads), tuple(windows)
        return cls(candidates, occur, table[:, occur], *shape, tuple(dense), lengths)

    @cached_property
    def levels(self) -> Tensor:
        """What the cells are. Shape: [cells, choices], int64."""
        return self.candidates.decode(self.numbers)

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
        full = self.pairs.sum(dim=1)
        return float(sum(full[layer] * self.heads[layer] for layer in self.dense)) / self.total

    @cached_property
    def shares(self) -> Tensor:
        """Pairs of each cell in a head of each learned layer, as a share of all pairs.

        Shape: [learned layers, cells], float64.
        """
        return self.pairs[self.learned] / self.total

    @cached_property
    def keeps(self) -> Tensor:
        """Which combination keeps which cell. Shape: [combinations, cells], float64."""
        return self.candidates.keeps(self.levels).double()

    @cached_property
    def combinations(self) -> Tensor:
        """The share of all pairs that a head of each learned layer allows with each combination.

        Shape: [learned layers, combinations], float64.
        """
        return self.shares @ self.keeps.T

    def weights(self, groups: int) -> Tensor:
        """Heads that a choice stands for: 1, or those of a layer if `groups` is 1.

        Shape: [learned layers, 1], float64.
        """
        heads = torch.tensor([self.heads[layer] for layer in self.learned], dtype=torch.float64)
        return (heads if groups == 1 else torch.ones_like(heads))[:, None]

    def budget(self, sparsity: float) -> float:
        """The share of all pairs that is left to the learned layers at a sparsity."""
        return 1 - sparsity - self.fixed

    def allowed(self, log_chances: Sequence[Tensor]) -> Tensor:
        """The chance that a pair of each cell is allowed, with gradient.

        Shape: [learned layers, heads or 1, entries] for each choice, to [learned layers, heads or
        1, cells].
        """
        levels = self.levels.to(log_chances[0].device)
        missed = sum(
            log_missed(chances)[..., levels[:, choice]]
            for choice, chances in enumerate(log_chances)
        )
        assert isinstance(missed, Tensor)
        return -missed.expm1()

    def density(self, log_chances: Sequence[Tensor]) -> Tensor:
        """The expected density, a scalar: exact, dense layers included.

        Shape, for each choice: [learned layers, heads or 1, entries].
        """
        allowed = self.allowed(log_chances)
        weights = (self.shares * self.weights(allowed.shape[1])).to(allowed)
        return (allowed * weights[:, None, :]).sum() + self.fixed

    @property
    def highest(self) -> float:
        """The highest sparsity that these texts allow: every head with the least."""
        return 1 - self._all_heads(self.combinations[:, 0])

    @property
    def lowest(self) -> float:
        """The lowest sparsity that the candidates allow: every head with all of them."""
        return 1 - self._all_heads(self.combinations[:, -1])

    def _all_heads(self, shares: Tensor) -> float:
        return float((shares * self.weights(1)[:, 0]).sum()) + self.fixed

    def check(self, sparsity: float) -> None:
        """Raises a PlanError that names the highest or lowest sparsity if one is out of reach."""
        check_sparsity(sparsity)
        if sparsity > self.highest + 1e-9:
            keeps = "every token keeps itself"
            if self.candidates.globals and not self.candidates.off:
                keeps += " and global tokens keep their rows and columns"
            # Rounded down, so that the number that is named can be reached.
            raise PlanError(
                f"sparsity {sparsity:g} cannot be reached on these texts: {keeps}, so the highest "
                f"is {int(self.highest * 1000) / 1000:.3f}"
            )
        if sparsity < self.lowest - 1e-9:
            raise PlanError(
                f"sparsity {sparsity:g} is below what the largest degrees give on these texts: the "
                f"lowest is {math.ceil(self.lowest * 1000) / 1000:.3f}"
            )


def check_sparsity(sparsity: float) -> None:
    """Raises a PlanError for what can be the sparsity of no plan."""
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not number or not 0 <= sparsity <= 1:
        raise PlanError(f"sparsity {sparsity!r} is not a number from 0 to 1")
