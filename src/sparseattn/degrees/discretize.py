"""From what each head is sure of to a plan that meets the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.degrees.cost import Costs
from sparseattn.degrees.knapsack import solve_knapsack
from sparseattn.pattern import Pattern
from sparseattn.plan import Entry, Plan

#: Combinations of a head that the knapsack chooses from, at most; its time grows with them.
MOST_COMBINATIONS = 24

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Discretized:
    """A plan that meets a budget.

    Attributes:
        plan: The plan, global tokens included.
        chosen: The candidate of each choice. Shape: [learned layers, heads, choices], int64.
        costs: What the candidates cost on the texts of the budget.
    """

    plan: Plan
    chosen: Tensor
    costs: Costs

    @property
    def nothing_else(self) -> str:
        """What to call a head that chose nothing: `off`, or that it has the global tokens alone."""
        candidates = self.costs.candidates
        gated = candidates.off or candidates.global_pattern is None
        return "off" if gated else "global alone"

    @cached_property
    def shares(self) -> dict[str, float]:
        """The share of what is allowed that each kind of connection takes.

        Counted over the texts of the budget. A pair that several kinds allow counts for the first
        of them, in the order in which they are given; `always` is what every head keeps: each
        token's own place, and global tokens where no head may do without them.
        """
        costs = self.costs
        names = costs.candidates.names
        kept = costs.levels <= self.chosen[:, :, None, :]  # [layers, heads, cells, choices]
        first = torch.where(kept.any(dim=-1), kept.long().argmax(dim=-1), len(names))
        own = (costs.levels == 0).all(dim=-1)
        first = first.masked_fill(own, len(names) + 1)
        pairs = costs.pairs[costs.learned][:, None, :].expand_as(first)
        sums = torch.zeros(len(names) + 2, dtype=torch.float64)
        sums.scatter_add_(0, first.flatten(), pairs.flatten())
        kinds = [*sums[: len(names)].tolist(), float(sums[-1])]
        total = max(sum(kinds), 1.0)
        return {name: n / total for name, n in zip([*names, "always"], kinds, strict=True)}


def discretize(values: Tensor, costs: Costs, sparsity: float) -> Discretized:
    """Picks a combination for each head (or layer) within a budget.

    Args:
        values: What keeping the pairs of each cell is worth.
            Shape: [learned layers, heads or 1, cells], at least 0.
        costs: What the cells cost.
        sparsity: What the plan is to have over the texts of `costs`.
    """
    layers, groups, _ = values.shape
    gains = (values.detach().cpu().double() @ costs.keeps.T).flatten(0, 1).numpy()
    prices = (costs.combinations * costs.weights(groups)).repeat_interleave(groups, dim=0).numpy()
    items = [efficient(gain, price) for gain, price in zip(gains, prices, strict=True)]
    widest = max(map(len, items))
    # Items have as many entries: the last is repeated, which no choice prefers to the first.
    entries = np.stack([np.pad(item, (0, widest - len(item)), mode="edge") for item in items])
    picked = solve_knapsack(
        np.take_along_axis(gains, entries, axis=1),
        np.take_along_axis(prices, entries, axis=1),
        costs.budget(sparsity),
    )
    combination = np.take_along_axis(entries, picked[:, None], axis=1)[:, 0]
    chosen = costs.candidates.combinations[torch.from_numpy(combination)]
    chosen = chosen.view(layers, groups, -1).expand(-1, costs.heads[costs.learned[0]], -1)
    grid = [[costs.candidates.pattern(head) for head in row] for row in chosen.tolist()]
    return Discretized(_plan(grid, costs.learned, costs.heads), chosen, costs)


def efficient(gains: Floats, prices: Floats, most: int = MOST_COMBINATIONS) -> Ints:
    """The combinations of a head that are worth looking at, from the cheapest.

    Those of which none is cheaper and gains as much; of more than `most` of them, first the corners
    of the upper hull, then those spread evenly over the rest.

    Shape: [combinations] each, to [at most `most`], int64.
    """
    order = np.lexsort((-gains, prices))
    best = np.maximum.accumulate(gains[order])
    rises = np.concatenate([[True], best[1:] > best[:-1] * (1 + 1e-12)])
    front: Ints = order[rises]
    if len(front) <= most:
        return front
    hull = _hull(gains[front], prices[front])
    kept = hull if len(hull) <= most else hull[_spread(len(hull), most)]
    rest = np.setdiff1d(np.arange(len(front)), kept)
    more = rest[_spread(len(rest), most - len(kept))]
    found: Ints = front[np.sort(np.concatenate([kept, more]))]
    return found


def _hull(gains: Floats, prices: Floats) -> Ints:
    """Indices of the corners of the upper hull of points with ascending prices and gains."""
    corners: list[int] = []
    for index in range(len(gains)):
        while len(corners) > 1:
            a, b = corners[-2:]
            lift = (gains[b] - gains[a]) * (prices[index] - prices[a])
            if lift > (gains[index] - gains[a]) * (prices[b] - prices[a]):
                break
            corners.pop()
        corners.append(index)
    return np.asarray(corners)


def _spread(count: int, most: int) -> Ints:
    """At most so many of `count` indices, spread evenly, the first and the last among them."""
    found: Ints = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
    return found


def plan_from_heads(flat: Sequence[Pattern], heads: Sequence[int]) -> Plan:
    """A plan from the patterns of all heads in a row, layer after layer."""
    ends = list(accumulate(heads))
    grid = [flat[end - many : end] for end, many in zip(ends, heads, strict=True)]
    return _plan(grid, range(len(heads)), heads)


def _plan(grid: Sequence[Sequence[Pattern]], layers: Sequence[int], shape: Sequence[int]) -> Plan:
    """A plan from a pattern a head, with an entry for the heads of a layer that share one."""
    entries = []
    for patterns, layer in zip(grid, layers, strict=True):
        heads: dict[Pattern, list[int]] = {}
        for head, pattern in enumerate(patterns):
            heads.setdefault(pattern, []).append(head)
        for pattern, members in heads.items():
            which = ":" if len(heads) == 1 else ",".join(map(str, members))
            entries.append(Entry(pattern, str(layer), which))
    return Plan(tuple(entries), tuple(shape))
