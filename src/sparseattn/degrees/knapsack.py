"""Choosing one entry a head so that the most value is kept within a budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseattn.errors import PlanError

#: Steps that the budget beyond the cheapest choice is divided into.
_STEPS = 20_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def solve_knapsack(values: Floats, costs: Floats, budget: float) -> Ints:
    """Picks an entry for each item: the most value, at a cost within the budget.

    A dynamic programme over items and the cost spent, in steps of 1/20,000 of what the budget
    leaves beyond the cheapest choice; a cost is rounded up, so the budget holds exactly. What
    rounding left over is then spent where it gives the most value for its cost: the cost comes as
    close to the budget as single changes can bring it, from below.

    Args:
        values: Not falling from one entry to the next. Shape: [items, entries].
        costs: Likewise, in the unit of the budget. Shape: [items, entries].
        budget: The most that the choice may cost in all.

    Returns:
        The entry of each item. Shape: [items], int64.

    Raises:
        PlanError: Even the cheapest choice is beyond the budget.
    """
    extra = costs - costs[:, :1]
    room = budget - costs[:, 0].sum()
    if room < -1e-9 * max(1.0, abs(budget)):
        raise PlanError(
            f"the cheapest choice costs {costs[:, 0].sum():g}, the budget is {budget:g}"
        )
    if extra[:, -1].sum() <= room:
        return np.full(len(costs), costs.shape[1] - 1, dtype=np.int64)
    if room <= 0:
        return np.zeros(len(costs), dtype=np.int64)
    # What is beyond the budget stays out whatever it costs; its quotient may not fit a number.
    steps = np.ceil(np.minimum(extra / room, 2.0) * _STEPS - 1e-9).astype(np.int64)
    return _fill(_solve_steps(values, steps), values, extra, room)


def _solve_steps(values: Floats, steps: Ints) -> Ints:
    """The best choice with at most `_STEPS` steps in all."""
    best = np.zeros(_STEPS + 1)
    taken = np.zeros((len(values), _STEPS + 1), dtype=np.int8)
    for item, (gains, sizes) in enumerate(zip(values, steps, strict=True)):
        after = best + gains[0]
        for entry in range(1, len(gains)):
            size = sizes[entry]
            if size > _STEPS:
                break
            value = best[: _STEPS + 1 - size] + gains[entry]
            better = value > after[size:]
            np.copyto(after[size:], value, where=better)
            np.copyto(taken[item, size:], entry, where=better)
        best = after
    chosen = np.zeros(len(steps), dtype=np.int64)
    left = _STEPS
    for item in reversed(range(len(steps))):
        chosen[item] = taken[item, left]
        left -= int(steps[item, chosen[item]])
    return chosen


def _fill(chosen: Ints, values: Floats, extra: Floats, room: float) -> Ints:
    """Spends what is left, where it gains the most for its cost, until nothing more fits."""
    items = np.arange(len(chosen))
    left = room - extra[items, chosen].sum()
    while True:
        cost = extra - extra[items, chosen][:, None]
        gain = values - values[items, chosen][:, None]
        fits = (np.arange(extra.shape[1]) > chosen[:, None]) & (cost <= left) & (cost > 0)
        if not fits.any():
            return chosen
        rate = np.where(fits, gain / np.where(fits, cost, 1.0), -np.inf)
        item, entry = np.unravel_index(int(rate.argmax()), rate.shape)
        left -= cost[item, entry]
        chosen[item] = entry
