"""How often a difference is called, in simulated studies: without one and with one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from sparseattn.stats import OverExamples, VarianceComponents, compare_binary

STUDIES = 2000
EXAMPLES = 400


def _study(draw, seeds: int, luck: tuple[float, float], taste: float, effect: float) -> NDArray:
    """Right and wrong answers of two arms, [2, seeds, EXAMPLES].

    An example is as hard in every run (`ease`) and may suit an arm (`taste`); a run is lucky as a
    whole (`luck`, for each arm) and on each example.
    """
    ease = draw.normal(3.0, 2.0, EXAMPLES) + draw.normal(0, taste, (2, 1, EXAMPLES))
    runs = draw.normal(0, 1, (2, seeds, 1)) * np.array(luck).reshape(2, 1, 1)
    noise = draw.normal(0, 1, (2, seeds, EXAMPLES))
    return (ease + runs + noise - np.array([0, effect]).reshape(2, 1, 1) > 0).astype(float)


def _called(right: NDArray) -> bool:
    seeds = right.shape[1]
    scores = right.reshape(2 * seeds, EXAMPLES)
    covariance = np.cov(scores) / EXAMPLES
    differing = int((np.ptp(scores, axis=0) > 0).sum())
    examples = OverExamples.of(covariance, seeds, EXAMPLES, differing)
    a, b = right.mean(axis=2)
    # What `TestResult.p < 0.05` says, without the search for p.
    return bool(abs(a.mean() - b.mean()) > VarianceComponents.of(a, b, examples).half_width(0.05))


def _share(
    seeds: int, luck: tuple[float, float], taste: float, effect: float, studies: int
) -> float:
    draw = np.random.default_rng(seeds)
    called = sum(_called(_study(draw, seeds, luck, taste, effect)) for _ in range(studies))
    return called / studies


@pytest.mark.parametrize(
    ("seeds", "luck", "taste"),
    [
        (3, (0.1, 0.1), 0.5),  # about what fine-tuning shows: 0.9 points between seeds
        (3, (0.3, 0.3), 0.0),  # runs that are lucky as a whole
        (3, (0.05, 0.5), 0.5),  # one arm is far less stable than the other
        (5, (0.1, 0.1), 1.0),  # arms that are right about different examples
    ],
)
def test_without_an_effect_few_studies_call_one(seeds, luck, taste) -> None:
    assert _share(seeds, luck, taste, 0.0, STUDIES) <= 0.065


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.5), (5, 0.9)])
def test_a_real_effect_is_called(seeds: int, least: float) -> None:
    """About 5 points of accuracy between arms whose seeds spread by about 1.2 points."""
    assert _share(seeds, (0.1, 0.1), 0.5, 0.6, 300) >= least


def test_one_seed_holds_its_level_for_runs_without_luck() -> None:
    draw = np.random.default_rng(0)
    studies = (_study(draw, 1, (0.0, 0.0), 0.0, 0.0) for _ in range(STUDIES))

    @cache
    def called(gained: int, lost: int) -> bool:
        """The test reads nothing else of a study."""
        changed = [[1.0] * gained + [0.0] * lost, [0.0] * gained + [1.0] * lost]
        a, b = np.pad(changed, ((0, 0), (0, EXAMPLES - gained - lost)))
        return compare_binary(a, b).p < 0.05

    signs = [np.sign(a[0] - b[0]) for a, b in studies]
    share = sum(called(int((s > 0).sum()), int((s < 0).sum())) for s in signs) / STUDIES
    assert share <= 0.065


def test_the_detectable_difference_is_detected_in_four_studies_of_five() -> None:
    """On draws of the very variances that the spread states."""
    spread = VarianceComponents((4e-5, 4e-5), (3, 3), OverExamples(6e-5, 4e-5, EXAMPLES, 100))
    truth = spread.detectable(0.05)
    draw = np.random.default_rng(5)
    found = 0
    for _ in range(STUDIES):
        a, b = draw.normal(0, np.sqrt(3 * 4e-5), (2, 3)) + np.array([[truth], [0]])
        again = VarianceComponents.of(a, b, spread.examples)
        difference = a.mean() - b.mean() + draw.normal(0, np.sqrt(spread.examples.common))
        found += difference > again.half_width(0.05)
    assert found / STUDIES == pytest.approx(0.8, abs=0.03)
