"""From distributions of radii to a plan that meets the budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.knapsack import choose, tilt
from sparseattn.pattern import Pattern
from sparseattn.patterns.irregular import Irregular
from sparseattn.plan import Entry, Plan

__all__ = ["dealt", "irregular_plan", "plan_of", "regular_choice", "regular_plan"]

Choice = NDArray[np.int64]


def regular_choice(values: Tensor, costs: Costs, sparsity: float) -> Choice:
    """Picks a radius a head (or a layer) within a budget.

    Args:
        values: What each entry is worth, not falling along the menu.
            Shape: [learned layers, heads or 1, entries].
        costs: What it costs.
        sparsity: What the plan is to have over the texts of `costs`.

    Returns:
        Entries of the menu. Shape: [learned layers, heads or 1], int64.
    """
    layers, groups, entries = values.shape
    worth = values.detach().cpu().double().reshape(-1, entries).numpy()
    budget = 1 - sparsity - costs.fixed / costs.total
    return choose(worth, costs.items(groups), budget).reshape(layers, groups)


def regular_plan(
    choice: Choice, menu: Candidates, costs: Costs, windows_only: bool = False
) -> Plan:
    """The plan of a radius a head.

    Args:
        choice: What `regular_choice` returned.
        menu: The radii.
        costs: Says which layers were chosen for.
        windows_only: Leaves the global tokens out, to count what the windows allow by themselves.
    """
    make = menu.window if windows_only else menu.pattern
    grid = [
        [make(int(entry)) for entry in np.broadcast_to(row, costs.heads[layer])]
        for row, layer in zip(choice, costs.learned, strict=True)
    ]
    return plan_of(grid, costs.learned, costs.heads)


def irregular_plan(
    log_chances: Tensor,
    menu: Candidates,
    costs: Costs,
    sparsity: float,
    seed: int = 0,
    windows_only: bool = False,
) -> Plan:
    """The plan of a radius a token position, drawn from each head's distribution.

    The distributions are moved, by as little as possible, to the expected cost that was stated.

    Args:
        log_chances: Shape: [learned layers, heads or 1, entries].
        menu: The radii, in tokens.
        costs: What they cost.
        sparsity: What the plan is to have over the texts of `costs`.
        seed: Another seed draws other positions; every head draws its own.
        windows_only: See `regular_plan`.
    """
    layers, groups, entries = log_chances.shape
    flat = log_chances.detach().cpu().double().reshape(-1, entries).numpy()
    budget = 1 - sparsity - costs.fixed / costs.total
    chances = tilt(flat, costs.items(groups), budget).reshape(layers, groups, entries)
    radii = tuple(int(entry) for entry in menu.entries)
    grid: list[list[Pattern]] = []
    for row, layer in zip(chances, costs.learned, strict=True):
        patterns: list[Pattern] = []
        for head in range(costs.heads[layer]):
            window = _drawn(radii, row[head % groups], seed * 10_000 + layer * 100 + head)
            patterns.append(window if windows_only else menu.joined(window))
        grid.append(patterns)
    return plan_of(grid, costs.learned, costs.heads)


def _drawn(radii: tuple[int, ...], chances: NDArray[np.float64], seed: int) -> Irregular:
    """Leaves out what is never drawn, so that a plan reads well."""
    weights = [round(float(chance), 4) for chance in chances]
    kept = [index for index, weight in enumerate(weights) if weight]
    return Irregular(tuple(radii[i] for i in kept), tuple(weights[i] for i in kept), seed)


def plan_of(grid: Sequence[Sequence[Pattern]], layers: Sequence[int], shape: Sequence[int]) -> Plan:
    """A plan from a pattern a head, with an entry for the heads of a layer that share one.

    Args:
        grid: A pattern for each head of each of the layers.
        layers: These layers.
        shape: Heads of each layer of the model.
    """
    entries = []
    for patterns, layer in zip(grid, layers, strict=True):
        heads: dict[Pattern, list[int]] = {}
        for head, pattern in enumerate(patterns):
            heads.setdefault(pattern, []).append(head)
        for pattern, members in heads.items():
            which = ":" if len(heads) == 1 else ",".join(map(str, members))
            entries.append(Entry(pattern, str(layer), which))
    return Plan(tuple(entries), tuple(shape))


def dealt(flat: Sequence[Pattern], heads: Sequence[int]) -> Plan:
    """A plan from the patterns of all heads in a row.

    Args:
        flat: Layer after layer, a pattern a head.
        heads: Heads of each layer.
    """
    ends = list(accumulate(heads))
    grid = [flat[end - many : end] for end, many in zip(ends, heads, strict=True)]
    return plan_of(grid, range(len(heads)), heads)
