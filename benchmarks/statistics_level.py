"""How often a difference is called: the tables of docs/statistics.md.

    python benchmarks/statistics_level.py          # two arms, several tests
    python benchmarks/statistics_level.py studies  # whole studies, as the report judges them

Simulated studies have the structure of real ones: an example is as hard in every run, may suit one
arm (taste), a run may be lucky as a whole (luck), and on each example. Scores are right or wrong.
Luck moves accuracy further down than up: arms are made easier by what that costs on average, so
that without an effect all have the same expected accuracy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from sparseattn.report import StudyData, summarise
from sparseattn.study.statistics import OverExamples, Spread

EXAMPLES = 872

#: Mean of the examples' logits; about 90% are right.
EASE = 3.0
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


def lucky(
    draw: np.random.Generator, luck: tuple[float, ...], seeds: int, taste: float
) -> NDArray[np.float64]:
    """The luck of runs, [arms, seeds, 1], and what it costs on average given back."""
    spread = np.array(luck)[:, None, None]
    others = 2.0**2 + 1.0 + taste**2
    cost = EASE * (np.sqrt(1 + spread**2 / others) - 1)
    return draw.normal(0, 1, (len(luck), seeds, 1)) * spread + cost


def study(draw: np.random.Generator, setting: Setting, effect: float) -> NDArray[np.float64]:
    """Right and wrong answers, [2, seeds, EXAMPLES]."""
    ease = draw.normal(EASE, 2.0, EXAMPLES) + draw.normal(0, setting.taste, (2, 1, EXAMPLES))
    luck = lucky(draw, setting.luck, setting.seeds, setting.taste)
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


@dataclass(frozen=True)
class Whole:
    """A study of `dense` and other arms: `luck` of a run and `lost` logits, for each arm.

    Arms that lose nothing are those on which a call is false.
    """

    name: str
    luck: tuple[float, ...]
    seeds: int = 3
    taste: float = 0.5
    lost: tuple[float, ...] = (0.0,) * 6


WHOLE = (
    Whole("runs differ by single examples only", (0.0,) * 6, taste=0.0),
    Whole("typical: SD over seeds 0.9 points", (0.1,) * 6),
    Whole("unstable: SD over seeds 2 points", (0.3,) * 6),
    Whole("one arm unstable", (0.05, 0.5, 0.05, 0.05, 0.05, 0.05)),
    Whole("all arms but dense unstable", (0.05, 0.5, 0.5, 0.5, 0.5, 0.5)),
    Whole("dense unstable", (0.5, 0.05, 0.05, 0.05, 0.05, 0.05)),
    Whole("two of the arms 6.6 points lower", (0.1,) * 6, lost=(0.0, 0.8, 0.8, 0.0, 0.0, 0.0)),
    Whole("typical, 1 seed", (0.1,) * 6, seeds=1),
    Whole("typical, 2 seeds", (0.1,) * 6, seeds=2),
    Whole("typical, 5 seeds", (0.1,) * 6, seeds=5),
)


def answers(draw: np.random.Generator, whole: Whole) -> NDArray[np.bool_]:
    """Right and wrong answers, [arms, seeds, EXAMPLES]."""
    arms = len(whole.luck)
    ease = draw.normal(EASE, 2.0, EXAMPLES) + draw.normal(0, whole.taste, (arms, 1, EXAMPLES))
    luck = lucky(draw, whole.luck, whole.seeds, whole.taste)
    noise = draw.normal(0, 1, (arms, whole.seeds, EXAMPLES))
    right: NDArray[np.bool_] = ease + luck + noise - np.array(whole.lost)[:, None, None] > 0
    return right


def whole_study(right: NDArray[np.bool_]) -> StudyData:
    """A study with these answers, as `load_study` would give it to the report."""
    label = np.arange(EXAMPLES) % 2
    rows, kept = [], {}
    for arm, seed in np.ndindex(right.shape[:2]):
        score = right[arm, seed]
        name, digest = f"arm {arm}" if arm else "dense", f"{arm}-{seed}"
        rows.append((digest, name, ":" if arm else "", seed, "done", "accuracy", score.mean()))
        kept[digest] = pd.DataFrame(
            {
                "example": np.arange(EXAMPLES),
                "label": label,
                "prediction": np.where(score, label, 1 - label),
                "score": score.astype(float),
            }
        )
    columns = ["digest", "arm", "layers", "seed", "status", "headline", "accuracy"]
    return StudyData("simulated", "", {}, pd.DataFrame(rows, columns=columns), kept.__getitem__)


def under_005(dense: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the uncorrected p-value of two arms is under 0.05, without the report around it."""
    if len(dense) == 1:
        only = int((dense & ~other).sum()), int((other & ~dense).sum())
        return bool(sum(only) and stats.binomtest(only[0], sum(only)).pvalue < 0.05)
    return called(np.stack([dense, other]).astype(float))[-1]


def false_calls(whole: Whole, studies: int, seed: int = 1) -> tuple[float, float]:
    """Shares of studies in which the report calls an arm different that is not.

    The report is made of those studies only in which an uncorrected p-value is under 0.05: no
    correction calls a difference in the others.

    Returns:
        Corrected, as the report does it, and the share of studies with any p-value under 0.05.
    """
    draw = np.random.default_rng(seed)
    same = [place for place, lost in enumerate(whole.lost) if place and lost == 0]
    corrected = plain = 0
    for _ in range(studies):
        right = answers(draw, whole)
        if any(under_005(right[0], right[place]) for place in same):
            plain += 1
            arms = summarise(whole_study(right)).arms
            corrected += any(arms[place].verdict in ("lower", "higher") for place in same)
    return corrected / studies, plain / studies


def whole_studies(studies: int = 2000) -> None:
    """Prints a row a setting: studies with a false call, corrected and not."""
    print(
        "| no effect, 5 arms against dense | p of the report (Holm) | p under 0.05, uncorrected |"
    )
    print("| --- | ---: | ---: |")
    for whole in WHOLE:
        corrected, plain = false_calls(whole, studies)
        print(f"| {whole.name} | {100 * corrected:.1f} | {100 * plain:.1f} |", flush=True)


def pairs() -> None:
    """Prints a row a setting: without an effect, and with one of about 3.3 points."""
    for effect, studies in ((0.0, 2000), (0.4, 500)):
        print(f"| {'no effect' if not effect else 'about 3.3 points'} | {' | '.join(TESTS)} |")
        print("| --- |" + " ---: |" * len(TESTS))
        for setting in SETTINGS:
            cells = " | ".join(f"{share:.1f}" for share in shares(setting, effect, studies))
            print(f"| {setting.name} | {cells} |", flush=True)
        print()


if __name__ == "__main__":
    whole_studies() if sys.argv[1:] == ["studies"] else pairs()
