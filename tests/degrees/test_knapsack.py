"""The knapsack at the edges of its budget; test_discretize.py tries every choice there is."""

from __future__ import annotations

import numpy as np
import pytest

from sparseattn.degrees.knapsack import solve_knapsack
from sparseattn.errors import PlanError


def problem(seed, items, entries):
    draw = np.random.default_rng(seed)
    return (
        np.sort(draw.random((items, entries)), axis=1),
        np.sort(draw.random((items, entries)), axis=1) + 0.1,
    )


def total(table, chosen):
    return float(table[np.arange(len(table)), chosen].sum())


@pytest.mark.parametrize(
    ("values", "costs", "budget", "spent"),
    [
        ([[0.0, 0.5, 1.0]], [[0.1, 0.2, 1.0]], np.nextafter(0.1, 1.0), 0.1),  # next to nothing
        ([[0.0, 0.5, 1.0]], [[1.0, 1.0, 3.0]], 2.0, 1.0),
        ([[0.0] * 3] * 6, [[1.0, 2.0, 4.0]] * 6, 15.0, 15.0),  # ties leave nothing unspent
        ([[0.0] * 3] * 6, [[1.0, 2.0, 4.0]] * 6, 15.9, 15.0),
    ],
)
def test_budgets_at_the_edge(values, costs, budget, spent):
    values, costs = np.array(values), np.array(costs)
    chosen = solve_knapsack(values, costs, budget)
    assert total(costs, chosen) == spent
    if costs[0, 1] == costs[0, 0]:
        assert chosen.tolist() == [1], "what costs no more is taken"


def test_more_than_everything_and_less_than_anything():
    values, costs = problem(0, 4, 3)
    assert solve_knapsack(values, costs, 100.0).tolist() == [2] * 4
    assert solve_knapsack(values, costs, costs[:, 0].sum()).tolist() == [0] * 4
    with pytest.raises(PlanError, match="the cheapest choice costs"):
        solve_knapsack(values, costs, costs[:, 0].sum() - 0.01)
