"""From distributions of radii to a plan that meets the budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sparseattn.degrees.cost import Costs
from sparseattn.degrees.knapsack import exponential_tilt, solve_knapsack
from sparseattn.pattern import Pattern
from sparseattn.patterns.irregular import Irregular
from sparseattn.plan import Entry, Plan

__all__ = ["Discretized", "irregular", "plan_from_heads", "regular"]


class Discretized(NamedTuple):
    """A plan that meets a budget.

    Attributes:
        plan: The plan, global tokens included.
        windows: Its windows alone.
        costs: What each radius costs on the texts of the budget.
    """

    plan: Plan
    windows: Plan
    costs: Costs


def regular(values: Tensor, costs: Costs, sparsity: float) -> Discretized:
    """Picks a radius a head (or a layer) within a budget.

    Args:
        values: Importance of each entry, not falling from one to the next.
            Shape: [learned layers, heads or 1, entries].
        costs: What each entry costs.
        sparsity: What the plan is to have over the texts of `costs`.
    """
    _, groups, entries = values.shape
    flat = values.detach().cpu().double().reshape(-1, entries).numpy()
    chosen = solve_knapsack(flat, costs.items(groups), costs.budget(sparsity))
    grid = [
        [costs.candidates.window(int(entry)) for entry in np.broadcast_to(row, heads)]
        for row, heads in zip(chosen.reshape(-1, groups), _heads(costs), strict=True)
    ]
    return _discretized(grid, costs)


def irregular(log_chances: Tensor, costs: Costs, sparsity: float, seed: int = 0) -> Discretized:
    """Draws a radius a token position from each head's distribution.

    The distributions are moved, by as little as possible, to the expected cost of the budget.

    Args:
        log_chances: Shape: [learned layers, heads or 1, entries].
        costs: What each entry costs; radii are in tokens.
        sparsity: What the plan is to have over the texts of `costs`.
        seed: Another seed draws other positions; every head draws its own.
    """
    layers, groups, entries = log_chances.shape
    flat = log_chances.detach().cpu().double().reshape(-1, entries).numpy()
    chances = exponential_tilt(flat, costs.items(groups), costs.budget(sparsity))
    rows = chances.reshape(layers, groups, entries).tolist()
    radii = [int(entry) for entry in costs.candidates.entries]

    def drawn(index: int, head: int) -> Pattern:
        weights = [round(chance, 4) for chance in rows[index][head % groups]]
        # What is never drawn is left out, so that a plan reads well.
        kept = [(radius, weight) for radius, weight in zip(radii, weights, strict=True) if weight]
        place = seed * 10_000 + costs.learned[index] * 100 + head
        return Irregular(tuple(r for r, _ in kept), tuple(w for _, w in kept), place)

    grid = [[drawn(index, head) for head in range(n)] for index, n in enumerate(_heads(costs))]
    return _discretized(grid, costs)


def plan_from_heads(flat: Sequence[Pattern], heads: Sequence[int]) -> Plan:
    """A plan from the patterns of all heads in a row, layer after layer."""
    ends = list(accumulate(heads))
    grid = [flat[end - many : end] for end, many in zip(ends, heads, strict=True)]
    return _plan(grid, range(len(heads)), heads)


def _heads(costs: Costs) -> list[int]:
    return [costs.heads[layer] for layer in costs.learned]


def _discretized(windows: Sequence[Sequence[Pattern]], costs: Costs) -> Discretized:
    whole = [[costs.candidates.with_globals(window) for window in row] for row in windows]
    plan, alone = (_plan(grid, costs.learned, costs.heads) for grid in (whole, windows))
    return Discretized(plan, alone, costs)


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
