"""How often tests of two arms call a difference: the tables of docs/statistics.md.

    python benchmarks/statistics_level.py

Simulated studies have the structure of real ones: an example is as hard in every run, may suit one
arm (taste), a run may be lucky as a whole (luck), and on each example. Scores are right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sparseattn.study.statistics import OverExamples, Spread

EXAMPLES = 872
TESTS = ("pooled McNemar", "over seeds", "over examples", "minF'", "seeds and examples")


@dataclass(frozen=True)
class Setting:
    """What varies, in logits: `luck` of a run for each arm, `taste` of an example for an arm."""

    name: str
    seeds: int
    luck: tuple[float, float]
    taste: float


SETTINGS = (
    Setting("runs differ by single examples only", 3, (0.0, 0.0), 0.0),
    Setting("typical: SD over seeds 0.9 points", 3, (0.1, 0.1), 0.5),
    Setting("unstable: SD over seeds 2 points", 3, (0.3, 0.3), 0.5),
    Setting("one arm unstable", 3, (0.05, 0.5), 0.5),
    Setting("typical, 2 seeds", 2, (0.1, 0.1), 0.5),
    Setting("one arm unstable, 2 seeds", 2, (0.05, 0.5), 0.5),
    Setting("typical, 5 seeds", 5, (0.1, 0.1), 0.5),
    Setting("arms with taste, 5 seeds", 5, (0.1, 0.1), 1.0),
)


def study(draw: np.random.Generator, setting: Setting, effect: float) -> NDArray[np.float64]:
    """Right and wrong answers, [2, seeds, EXAMPLES]."""
    ease = draw.normal(3.0, 2.0, EXAMPLES) + draw.normal(0, setting.taste, (2, 1, EXAMPLES))
    luck = draw.normal(0, 1, (2, setting.seeds, 1)) * np.array(setting.luck)[:, None, None]
    noise = draw.normal(0, 1, (2, setting.seeds, EXAMPLES))
    lost = np.array([0, effect])[:, None, None]
    return (ease + luck + noise - lost > 0).astype(float)


def called(right: NDArray[np.float64]) -> list[bool]:
    """Whether each of `TESTS` calls a difference at 0.05."""
    seeds = right.shape[1]
    scores = right.reshape(-1, EXAMPLES)
    a, b = right.mean(axis=2)
    size = abs(a.mean() - b.mean())
    wins, losses = ((right[0] > right[1]).sum(), (right[0] < right[1]).sum())
    mcnemar = stats.chi2.sf((abs(wins - losses) - 1) ** 2 / max(wins + losses, 1), 1)
    differing = int((np.ptp(scores, axis=0) > 0).sum())
    examples = OverExamples.of(np.cov(scores) / EXAMPLES, seeds, EXAMPLES, differing)
    of_seeds = (a - b).var(ddof=1) / seeds
    both = of_seeds + examples.variance
    freedom = both**2 / (of_seeds**2 / (seeds - 1) + examples.variance**2 / (EXAMPLES - 1))
    return [
        mcnemar < 0.05,
        size > stats.t.ppf(0.975, seeds - 1) * np.sqrt(of_seeds),
        size > 1.96 * np.sqrt(examples.variance),
        size > stats.t.ppf(0.975, freedom) * np.sqrt(both),
        size > Spread.of(a, b, examples).half_width(0.05),
    ]


def shares(setting: Setting, effect: float, studies: int) -> NDArray[np.float64]:
    """How often each test calls a difference, in percent."""
    draw = np.random.default_rng(1)
    return 100 * np.mean([called(study(draw, setting, effect)) for _ in range(studies)], axis=0)


def main() -> None:
    """Prints a row a setting: without an effect, and with one of about 3.3 points."""
    for effect, studies in ((0.0, 2000), (0.4, 500)):
        print(f"| {'no effect' if not effect else 'about 3.3 points'} | {' | '.join(TESTS)} |")
        print("| --- |" + " ---: |" * len(TESTS))
        for setting in SETTINGS:
            cells = " | ".join(f"{share:.1f}" for share in shares(setting, effect, studies))
            print(f"| {setting.name} | {cells} |", flush=True)
        print()


if __name__ == "__main__":
    main()
