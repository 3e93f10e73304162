"""How many runs learned a task: the exact test, and its level."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from sparseattn.stats import LearnedRuns, compare_learned

THRESHOLD = 0.35


def _runs(learned: int, of: int) -> np.ndarray:
    return np.array([0.65] * learned + [0.12] * (of - learned))


def _p(a: tuple[int, int], b: tuple[int, int]) -> float:
    return compare_learned(_runs(*a), _runs(*b), THRESHOLD, 2000).p


def test_runs_that_learned_are_counted_with_their_mean() -> None:
    found = LearnedRuns.among(np.array([0.139, 0.553, 0.568]), THRESHOLD)
    assert (found.runs, found.of, found.mean) == (2, 3, pytest.approx(0.5605))
    assert np.isnan(LearnedRuns.among(np.array([0.1]), THRESHOLD).mean)


def _boschloo(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Twice the smaller one-sided p, by enumerating all tables on a fine grid of chances."""
    n, m = a[1], b[1]
    chances = np.linspace(0, 1, 2001)

    def weight(i: int, j: int) -> np.ndarray:
        k = i + j
        return comb(n, i) * comb(m, j) * chances**k * (1 - chances) ** (n + m - k)

    def one_sided(side: str) -> float:
        def fisher(i: int, j: int) -> float:
            return stats.fisher_exact([[i, j], [n - i, m - j]], alternative=side).pvalue

        own = fisher(a[0], b[0])
        cells = product(range(n + 1), range(m + 1))
        return max(sum(weight(i, j) for i, j in cells if fisher(i, j) <= own + 1e-12))

    return min(1.0, 2 * min(one_sided("less"), one_sided("greater")))


@pytest.mark.parametrize(
    ("a", "b"), [((3, 3), (0, 3)), ((2, 3), (0, 3)), ((4, 5), (1, 5)), ((0, 2), (3, 3))]
)
def test_p_is_that_of_enumerated_tables(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert _p(a, b) == pytest.approx(_boschloo(a, b), abs=2e-4)
    assert _p(b, a) == pytest.approx(_p(a, b), abs=1e-6)
    fisher = stats.fisher_exact([[a[0], b[0]], [a[1] - a[0], b[1] - b[0]]]).pvalue
    assert _p(a, b) <= fisher + 1e-12


def test_where_all_or_none_learned_there_is_nothing_to_find() -> None:
    assert _p((3, 3), (2, 2)) == _p((0, 3), (0, 2)) == 1.0


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_level_holds_whatever_the_chance_to_learn(seeds: int, chance: float) -> None:
    """Over all outcomes, weighted; a t-test calls a difference more often than it may."""
    level = 0.0
    for i, j in product(range(seeds + 1), repeat=2):
        weights = stats.binom.pmf([i, j], seeds, chance)
        level += weights.prod() * (_p((i, seeds), (j, seeds)) < 0.05)
    assert level <= 0.05


def test_nothing_is_said_of_a_spread() -> None:
    found = compare_learned(_runs(3, 3), _runs(0, 3), THRESHOLD, 2000)
    assert found.difference == pytest.approx(0.53)
    assert np.isnan([found.low, found.high, found.detectable]).all()
    assert found.examples == 2000
