"""How often a difference is called: the tables of docs/statistics.md.

    python benchmarks/statistics_level.py          # two arms, several tests
    python benchmarks/statistics_level.py studies  # whole studies, as the report judges them
    python benchmarks/statistics_level.py bootstrap  # metrics that are no mean over examples
    python benchmarks/statistics_level.py paired     # seeds that are paired, and that are not
    python benchmarks/statistics_level.py clusters   # examples that belong together

Simulated studies have the structure of real ones: an example is as hard in every run, may suit one
arm (taste), a run may be lucky as a whole (luck), and on each example. Scores are right or wrong.
Luck moves accuracy further down than up: arms are made easier by what that costs on average, so
that without an effect all have the same expected accuracy.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from sparseattn.report import ArmKey, StudyData, summarise
from sparseattn.report.evidence import Evidence, test_difference
from sparseattn.stats import OverExamples, VarianceComponents

EXAMPLES = 872

#: Mean of the examples' logits; about 90% are right.
EASE = 3.0
TESTS = ("pooled McNemar", "over seeds", "over examples", "minF'", "seeds and examples")


@dataclass(frozen=True)
class Setting:
    """A study, in logits: `luck` of a run for each arm, `taste` of an example for an arm.

    `lost` is what each arm loses, none by default: on those that lose nothing a call is false.
    `shared` is the correlation of the luck of two runs with the same seed.
    """

    name: str
    luck: tuple[float, ...]
    seeds: int = 3
    taste: float = 0.5
    lost: tuple[float, ...] = ()
    shared: float = 0.0


SETTINGS = (
    Setting("runs differ by single examples only", (0.0, 0.0), taste=0.0),
    Setting("typical: SD over seeds 0.9 points", (0.1, 0.1)),
    Setting("unstable: SD over seeds 2 points", (0.3, 0.3)),
    Setting("one arm unstable", (0.05, 0.5)),
    Setting("typical, 2 seeds", (0.1, 0.1), seeds=2),
    Setting("one arm unstable, 2 seeds", (0.05, 0.5), seeds=2),
    Setting("typical, 5 seeds", (0.1, 0.1), seeds=5),
    Setting("examples suit an arm, 5 seeds", (0.1, 0.1), seeds=5, taste=1.0),
)


def lucky(draw: np.random.Generator, setting: Setting) -> NDArray[np.float64]:
    """The luck of runs, [arms, seeds, 1], and what it costs on average given back."""
    spread, shared = np.array(setting.luck)[:, None, None], setting.shared
    others = 2.0**2 + 1.0 + setting.taste**2
    cost = EASE * (np.sqrt(1 + spread**2 / others) - 1)
    own = draw.normal(0, 1, (len(spread), setting.seeds, 1))
    if shared:
        own = np.sqrt(1 - shared) * own + np.sqrt(shared) * draw.normal(0, 1, (setting.seeds, 1))
    return own * spread + cost


def answers(draw: np.random.Generator, setting: Setting) -> NDArray[np.bool_]:
    """Right and wrong answers, [arms, seeds, EXAMPLES]."""
    arms = len(setting.luck)
    ease = draw.normal(EASE, 2.0, EXAMPLES) + draw.normal(0, setting.taste, (arms, 1, EXAMPLES))
    luck = lucky(draw, setting)
    noise = draw.normal(0, 1, (arms, setting.seeds, EXAMPLES))
    lost = np.array(setting.lost or [0.0] * arms)[:, None, None]
    right: NDArray[np.bool_] = ease + luck + noise - lost > 0
    return right


def called(right: NDArray[np.bool_]) -> list[bool]:
    """Whether each of `TESTS` calls a difference at 0.05."""
    seeds = right.shape[1]
    scores = right.reshape(-1, EXAMPLES).astype(float)
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
        size > VarianceComponents.of(a, b, examples).half_width(0.05),
    ]


def shares(setting: Setting, effect: float, studies: int) -> NDArray[np.float64]:
    """How often each test calls a difference, in percent."""
    draw, setting = np.random.default_rng(1), replace(setting, lost=(0.0, effect))
    return 100 * np.mean([called(answers(draw, setting)) for _ in range(studies)], axis=0)


#: Studies of `dense` and five other arms.
WHOLE = (
    Setting("runs differ by single examples only", (0.0,) * 6, taste=0.0),
    Setting("typical: SD over seeds 0.9 points", (0.1,) * 6),
    Setting("unstable: SD over seeds 2 points", (0.3,) * 6),
    Setting("one arm unstable", (0.05, 0.5, 0.05, 0.05, 0.05, 0.05)),
    Setting("all arms but dense unstable", (0.05, 0.5, 0.5, 0.5, 0.5, 0.5)),
    Setting("dense unstable", (0.5, 0.05, 0.05, 0.05, 0.05, 0.05)),
    Setting("two of the arms 6.6 points lower", (0.1,) * 6, lost=(0.0, 0.8, 0.8, 0.0, 0.0, 0.0)),
    Setting("typical, 1 seed", (0.1,) * 6, seeds=1),
    Setting("typical, 2 seeds", (0.1,) * 6, seeds=2),
    Setting("typical, 5 seeds", (0.1,) * 6, seeds=5),
)


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
    spec = {"task": {"kind": "classification"}}
    frame = pd.DataFrame(rows, columns=columns)
    return StudyData("simulated", "", spec, frame, kept.__getitem__, ("accuracy",))


def under_005(dense: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether the uncorrected p-value of two arms is under 0.05, without the report around it."""
    if len(dense) == 1:
        only = int((dense & ~other).sum()), int((other & ~dense).sum())
        return bool(sum(only) and stats.binomtest(only[0], sum(only)).pvalue < 0.05)
    return called(np.stack([dense, other]))[-1]


def false_calls(whole: Setting, studies: int, seed: int = 1) -> tuple[float, float]:
    """Shares of studies in which the report calls an arm different that is not.

    The report is made of those studies only in which an uncorrected p-value is under 0.05: no
    correction calls a difference in the others.

    Returns:
        Corrected, as the report does it, and the share of studies with any p-value under 0.05.
    """
    draw = np.random.default_rng(seed)
    same = [place for place in range(1, len(whole.luck)) if not whole.lost or not whole.lost[place]]
    corrected = plain = 0
    for _ in range(studies):
        right = answers(draw, whole)
        if any(under_005(right[0], right[place]) for place in same):
            plain += 1
            arms = summarise(whole_study(right)).arms
            corrected += any(arms[place].comparison.differs for place in same)
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


def f1_runs(draw: np.random.Generator, setting: Setting) -> list[pd.DataFrame]:
    """Predictions of two classes, a run a frame, the first arm's first; a quarter is class 1."""
    label = (np.arange(EXAMPLES) % 4 == 0).astype(int)
    right = answers(draw, setting).reshape(-1, EXAMPLES)
    return [framed(label, np.where(one, label, 1 - label), one) for one in right]


def correlated_runs(draw: np.random.Generator, setting: Setting) -> list[pd.DataFrame]:
    """Predictions of a number, likewise; luck makes all errors of a run larger or smaller."""
    label = draw.normal(0, 1, EXAMPLES)
    shape = (2, setting.seeds, EXAMPLES)
    error = draw.normal(0, 0.5, EXAMPLES) + draw.normal(0, 0.3 * setting.taste, (2, 1, EXAMPLES))
    luck = draw.normal(0, 0.4, (2, setting.seeds, 1)) * np.array(setting.luck)[:, None, None]
    guesses = label + (error + draw.normal(0, 0.3, shape)) * np.exp(luck)
    return [framed(label, one, (one - label) ** 2) for one in guesses.reshape(-1, EXAMPLES)]


def framed(
    label: NDArray[np.float64], prediction: NDArray[np.float64], score: NDArray[np.float64]
) -> pd.DataFrame:
    """The predictions of a run."""
    return pd.DataFrame({"label": label, "prediction": prediction, "score": score.astype(float)})


def f1_of_one(frame: pd.DataFrame) -> float:
    """F1 of class 1; scikit-learn's takes longer than all the rest of a study."""
    label, prediction = frame["label"].to_numpy(), frame["prediction"].to_numpy()
    return float(2 * (label & prediction).sum() / (label.sum() + prediction.sum()))


#: For each metric that is no mean over examples: runs, and the metric of one.
RESAMPLED = {
    "f1": (f1_runs, f1_of_one),
    "pearson": (correlated_runs, lambda frame: frame["label"].corr(frame["prediction"])),
}

#: The kind of task that each is a metric of.
KINDS = {"f1": "classification", "pearson": "regression", "accuracy": "classification"}

#: Arms that are alike in everything have the same expected metric, whichever it is.
ALIKE = [one for one in SETTINGS if one.luck[0] == one.luck[1]]


def by_runs_alone(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether the spread over runs lets p be under 0.05; that over examples only raises it."""
    nothing = OverExamples(0.0, 0.0, EXAMPLES, EXAMPLES)
    return bool(abs(a.mean() - b.mean()) > VarianceComponents.of(a, b, nothing).half_width(0.05))


def by_report(metric: str, frames: list[pd.DataFrame], values: NDArray[np.float64]) -> bool:
    """Whether the report has p under 0.05 for the two arms, each with half of the frames."""
    seeds = len(frames) // 2
    arms = [
        Evidence(ArmKey(name, ":"), values[part], tuple(range(seeds)), tuple(frames[part]))
        for name, part in (("a", slice(seeds)), ("b", slice(seeds, None)))
    ]
    return (
        test_difference(metric, {"kind": KINDS[metric]}, *arms, comparisons=1, threshold=None)[0].p
        < 0.05
    )


def resampled_calls(metric: str, setting: Setting, studies: int, seed: int = 1) -> float:
    """The share of studies of two arms, alike but for chance, in which p is under 0.05.

    Examples are resampled in those studies only in which the runs alone could show a difference.
    """
    draw, (make, value) = np.random.default_rng(seed), RESAMPLED[metric]
    called = 0
    for _ in range(studies):
        frames = make(draw, setting)
        values = np.array([value(frame) for frame in frames])
        if by_runs_alone(values[: setting.seeds], values[setting.seeds :]):
            called += by_report(metric, frames, values)
    return called / studies


def resampled(studies: int = 2000) -> None:
    """Prints a row a setting: studies with a false call, where the paired bootstrap is used."""
    print(f"| no effect | {' | '.join(RESAMPLED)} |")
    print("| --- |" + " ---: |" * len(RESAMPLED))
    for setting in ALIKE:
        shares = [100 * resampled_calls(metric, setting, studies) for metric in RESAMPLED]
        print(f"| {setting.name} | {' | '.join(f'{s:.1f}' for s in shares)} |", flush=True)


@dataclass(frozen=True)
class Clusters:
    """Examples that belong together: a cluster of `size` is as hard, and suits an arm, as a whole.

    `lost` is what one arm loses, in logits; both arms have `seeds` runs.
    """

    name: str
    size: int
    seeds: int = 3
    luck: float = 0.1
    taste: float = 0.7
    lost: float = 0.0


CLUSTERS = (
    Clusters("clusters of 4", 4),
    Clusters("clusters of 8", 8),
    Clusters("clusters of 8, 5 seeds", 8, seeds=5),
    Clusters("clusters of 8, 1 seed", 8, seeds=1, luck=0.0),
    Clusters("109 examples a cluster", 109),
)


def clustered_runs(draw: np.random.Generator, setting: Clusters) -> list[pd.DataFrame]:
    """Right and wrong answers of two arms, a run a frame, the first arm's first."""
    number = np.arange(EXAMPLES) // setting.size
    count = int(number[-1]) + 1
    ease = draw.normal(EASE, 1.5, count)[number] + draw.normal(0, 1.3, EXAMPLES)
    taste = draw.normal(0, setting.taste, (2, 1, count))[..., number]
    luck = draw.normal(0, setting.luck, (2, setting.seeds, 1))
    noise = draw.normal(0, 1, (2, setting.seeds, EXAMPLES))
    right = ease + taste + luck + noise - np.array([0, setting.lost])[:, None, None] > 0
    return [
        pd.DataFrame({"label": 1, "prediction": one, "score": one, "cluster": number})
        for one in right.reshape(-1, EXAMPLES).astype(float)
    ]


def clustered_calls(setting: Clusters, studies: int, seed: int = 1) -> tuple[float, float]:
    """The share of studies with p under 0.05: each example by itself, and clusters whole."""
    draw, called = np.random.default_rng(seed), np.zeros(2)
    for _ in range(studies):
        frames = clustered_runs(draw, setting)
        values = np.array([frame["score"].mean() for frame in frames])
        alone = [frame.drop(columns="cluster") for frame in frames]
        called += [by_report("accuracy", each, values) for each in (alone, frames)]
    return float(called[0] / studies), float(called[1] / studies)


def clusters(studies: int = 1000) -> None:
    """Prints a row a setting: false calls, and calls of an effect of about 3 points."""
    print("| clusters | level, by examples | level, by clusters | power, by clusters |")
    print("| --- | ---: | ---: | ---: |")
    for setting in CLUSTERS:
        alone, whole = clustered_calls(setting, studies)
        _, power = clustered_calls(replace(setting, lost=0.5), studies // 4)
        cells = " | ".join(f"{100 * share:.1f}" for share in (alone, whole, power))
        print(f"| {setting.name} | {cells} |", flush=True)


def pairs() -> None:
    """Prints a row a setting: without an effect, and with one of about 3.3 points."""
    for effect, studies in ((0.0, 2000), (0.4, 500)):
        print(f"| {'no effect' if not effect else 'about 3.3 points'} | {' | '.join(TESTS)} |")
        print("| --- |" + " ---: |" * len(TESTS))
        for setting in SETTINGS:
            cells = " | ".join(f"{share:.1f}" for share in shares(setting, effect, studies))
            print(f"| {setting.name} | {cells} |", flush=True)
        print()


#: Studies in which seeds decide, and in which examples do: the luck of runs, taste, the effect.
DECIDED_BY = {"seeds": ((0.4, 0.4), 0.3, 0.5), "examples": ((0.1, 0.1), 1.0, 0.3)}
COUNTS, CORRELATIONS = (3, 6, 10), (0.0, 0.43, 0.8)


def paired_calls(right: NDArray[np.bool_]) -> tuple[bool, bool]:
    """Whether the test calls a difference at 0.05: seeds not paired, and paired."""
    seeds, scores = right.shape[1], right.reshape(-1, EXAMPLES)
    (a, b), covariance = right.mean(axis=2), np.cov(scores) / EXAMPLES
    apart = VarianceComponents.of(a, b, OverExamples.of(covariance, seeds, EXAMPLES, EXAMPLES))
    pairs = VarianceComponents.paired(a, b, OverExamples.paired(covariance, EXAMPLES, EXAMPLES))
    size = abs(a.mean() - b.mean())
    return bool(size > apart.half_width(0.05)), bool(size > pairs.half_width(0.05))


def paired(studies: int = 2000) -> None:
    """Prints a row a setting: level and power in percent, seeds not paired and paired."""
    print("| decided by | seeds | correlation | level | level, paired | power | power, paired |")
    print("| --- |" + " ---: |" * 6)
    for name, (luck, taste, effect) in DECIDED_BY.items():
        for seeds, shared in itertools.product(COUNTS, CORRELATIONS):
            draw = np.random.default_rng(1)
            settings = (
                Setting(name, luck, seeds, taste, (0.0, lost), shared) for lost in (0.0, effect)
            )
            level, power = (
                np.mean([paired_calls(answers(draw, each)) for _ in range(studies)], axis=0)
                for each in settings
            )
            cells = [100 * level[0], 100 * level[1], 100 * power[0], 100 * power[1]]
            shares = " | ".join(f"{share:.1f}" for share in cells)
            print(f"| {name} | {seeds} | {shared:g} | {shares} |", flush=True)


if __name__ == "__main__":
    modes = {"studies": whole_studies, "bootstrap": resampled, "paired": paired}
    modes["clusters"] = clusters
    modes.get("".join(sys.argv[1:]), pairs)()
