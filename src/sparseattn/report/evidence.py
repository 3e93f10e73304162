"""From the predictions of two arms' trials to a test of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sparseattn.errors import StudyError
from sparseattn.report.data import Arm, StudyData
from sparseattn.stats import (
    Measure,
    Outcome,
    OverExamples,
    compare_binary,
    compare_bootstrap,
    compare_runs,
    mean_of,
    recognise,
    replicates,
)

__all__ = ["Evidence", "read", "test_difference"]

Array = NDArray[np.float64]

#: Trials of an arm whose predictions are read. The spread over seeds comes from all of them; the
#: spread over examples is known well enough from these.
_READ = 20

_ONCE = "{metric} could not be computed again from the predictions: example scores are compared"


@dataclass(frozen=True)
class Evidence:
    """The finished trials of an arm.

    Attributes:
        arm: The arm.
        values: The main metric of each trial.
        seeds: Their seeds.
        frames: The predictions of the first trials, by example.
    """

    arm: Arm
    values: Array
    seeds: tuple[int, ...]
    frames: tuple[pd.DataFrame, ...]

    def only(self, seed: int | None) -> Evidence:
        """One trial of the arm: that of a seed, or the first."""
        at = self.seeds.index(seed) if seed in self.seeds[: len(self.frames)] else 0
        one = slice(at, at + 1)
        return Evidence(self.arm, self.values[one], self.seeds[one], self.frames[one])


def read(data: StudyData, arm: Arm) -> Evidence:
    """Reads what an arm's trials predicted.

    Raises:
        StudyError: No trial of it finished, or one predicts an example twice.
    """
    rows = data.done_in(arm)
    if rows.empty:
        raise StudyError(f"arm {arm.address!r} has no finished trial to compare")
    frames = []
    for digest in rows["digest"].iloc[:_READ]:
        frame = data.predictions(str(digest)).set_index("example")
        if not frame.index.is_unique:
            raise StudyError(f"trial {digest} has several predictions for one example")
        frames.append(frame)
    seeds = tuple(int(seed) for seed in rows["seed"])
    return Evidence(arm, rows[data.headline].to_numpy(float), seeds, tuple(frames))


def test_difference(
    metric: str, a: Evidence, b: Evidence, comparisons: int
) -> tuple[Outcome, Array, Array]:
    """Tests the difference of two arms.

    Args:
        metric: The main metric.
        a: The first arm's trials.
        b: The second arm's.
        comparisons: How many comparisons the table holds.

    Returns:
        The outcome, and the values of each arm that went into it.

    Raises:
        StudyError: The arms have no example in common.
    """
    if min(len(a.values), len(b.values)) < 2:
        shared = [seed for seed in a.seeds if seed in b.seeds]
        a, b = (each.only(shared[0] if shared else None) for each in (a, b))
    frames = _on_common_examples(a, b)
    recorded = [*a.values[: len(a.frames)], *b.values[: len(b.frames)]]
    measures, exact = _measures(frames, metric, recorded)
    of_a, of_b = a.values, b.values
    if not exact:
        means = np.array([measure(np.ones((1, len(frames[0]))))[0] for measure in measures])
        of_a, of_b = means[: len(a.frames)], means[len(a.frames) :]
    if len(of_a) == 1 or len(of_b) == 1:
        outcome = _one_seed(frames, measures, comparisons)
    else:
        examples = _over_examples(frames, measures, len(a.frames))
        outcome = compare_runs(of_a, of_b, examples, comparisons)
    if not exact:
        notes = [outcome.caveat, _ONCE.format(metric=metric)]
        outcome = replace(outcome, caveat="; ".join(filter(None, notes)))
    return outcome, of_a, of_b


def _on_common_examples(a: Evidence, b: Evidence) -> list[pd.DataFrame]:
    """The frames of both, on the examples that all hold, in one order."""
    frames = [*a.frames, *b.frames]
    common = frames[0].index
    for frame in frames[1:]:
        if not frame.index.equals(common):
            common = common.intersection(frame.index)
    if len(common) < 2:
        raise StudyError(
            f"arms {a.arm.address!r} and {b.arm.address!r} share {len(common)} evaluation examples "
            "over their seeds; a comparison needs the same examples"
        )
    return [f if f.index.equals(common) else f.reindex(common) for f in frames]


def _measures(
    frames: Sequence[pd.DataFrame], metric: str, recorded: Sequence[float]
) -> tuple[list[Measure], bool]:
    """How to compute the metric of each frame anew, and whether that gives what is recorded."""
    found = [recognise(frame, metric, value) for frame, value in zip(frames, recorded, strict=True)]
    known = [measure for measure in found if measure is not None]
    if len(known) == len(found):
        return known, True
    if "pearson" in metric or "spearman" in metric:  # their scores are errors: less is better
        raise StudyError(f"{metric} could not be computed again from the predictions")
    return [mean_of(frame["score"].to_numpy(float)) for frame in frames], False


def _one_seed(
    frames: Sequence[pd.DataFrame], measures: Sequence[Measure], comparisons: int
) -> Outcome:
    a, b = (frame["score"].to_numpy(float) for frame in frames)
    values = [float(measure(np.ones((1, len(a))))[0]) for measure in measures]
    binary = np.isin(np.concatenate([a, b]), (0.0, 1.0)).all()
    if binary and np.allclose(values, [a.mean(), b.mean()], atol=1e-9):
        return compare_binary(a, b, comparisons)
    made = replicates(measures, len(a))
    return compare_bootstrap(values[0] - values[1], made[0] - made[1], len(a), comparisons)


def _over_examples(
    frames: Sequence[pd.DataFrame], measures: Sequence[Measure], first: int
) -> OverExamples:
    """The spread over examples: exact for a mean of scores, else by the paired bootstrap."""
    scores = np.stack([frame["score"].to_numpy(float) for frame in frames])
    n = scores.shape[1]
    once = np.array([measure(np.ones((1, n)))[0] for measure in measures])
    means = np.allclose(once, scores.mean(axis=1), atol=1e-9)
    covariance = np.cov(scores) / n if means else np.cov(replicates(measures, n))
    differing = int((np.ptp(scores, axis=0) > 0).sum())
    return OverExamples.of(covariance, first, n, differing)
