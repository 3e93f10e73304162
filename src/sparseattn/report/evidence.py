"""From the predictions of two arms' trials to a test of their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sparseattn.errors import StudyError
from sparseattn.report.data import StudyData
from sparseattn.stats import (
    Measure,
    OverExamples,
    TestResult,
    compare_binary,
    compare_bootstrap,
    compare_learned,
    compare_runs,
    measure,
    replicates,
)
from sparseattn.study.arms import ArmKey

Array = NDArray[np.float64]
Clusters = NDArray[np.int64]

#: Trials of an arm whose predictions are read. The variance over seeds comes from all of them; that
#: over examples is known well enough from these.
_READ = 20

#: Seeds that two arms share from which on they are paired; docs/statistics.md says why.
PAIRED = 6

#: Metrics may be computed in single precision where they are recorded.
_TOLERANCE = 2e-6


@dataclass(frozen=True)
class Evidence:
    """The finished trials of an arm.

    Attributes:
        arm: The arm.
        values: The main metric of each trial.
        seeds: Their seeds.
        frames: The predictions of the first trials, by example; their `cluster`, where they have
            one, says which examples belong together.
    """

    arm: ArmKey
    values: Array
    seeds: tuple[int, ...]
    frames: tuple[pd.DataFrame, ...]

    def only(self, seed: int | None) -> Evidence:
        """One trial of the arm: that of a seed, or the first."""
        return self.of([seed if seed is not None and seed in self.read else self.seeds[0]], 1)

    @property
    def read(self) -> tuple[int, ...]:
        """The seeds of which the predictions were read."""
        return self.seeds[: len(self.frames)]

    def of(self, seeds: Sequence[int], read: int) -> Evidence:
        """The trials of some seeds, with the predictions of the first `read` of them."""
        places = [self.seeds.index(seed) for seed in seeds]
        frames = tuple(self.frames[at] for at in places[:read])
        return Evidence(self.arm, self.values[places], tuple(seeds), frames)


def read(data: StudyData, arm: ArmKey) -> Evidence:
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
    metric: str,
    task: Mapping[str, Any],
    a: Evidence,
    b: Evidence,
    comparisons: int,
    threshold: float | None,
) -> tuple[TestResult, Array, Array]:
    """Tests the difference of two arms.

    Arms that share `PAIRED` seeds or more are compared on these, in pairs. Where a run learns the
    task or does not, and not all runs of two arms with several seeds did, it is counted how many.

    Args:
        metric: The main metric.
        task: The task of the study's spec: its `kind` and `labels` say how the metric is computed.
        a: The first arm's trials.
        b: The second arm's.
        comparisons: How many comparisons the table holds.
        threshold: The metric from which a run has learned the task, where runs do or do not.

    Returns:
        The result, and the values of each arm that it was computed from.

    Raises:
        StudyError: The arms have no example in common, or the metric cannot be computed again.
    """
    shared = [seed for seed in a.seeds if seed in b.seeds]
    read, paired = [seed for seed in shared if seed in a.read and seed in b.read], False
    if min(len(a.values), len(b.values)) < 2:
        a, b = (each.only(shared[0] if shared else None) for each in (a, b))
    elif threshold is not None and min(*a.values, *b.values) < threshold:
        count = len(_on_common_examples(a, b)[0])
        result = compare_learned(a.values, b.values, threshold, count)
        return result, a.values, b.values
    elif paired := len(read) >= PAIRED:
        order = [*read, *(seed for seed in shared if seed not in read)]
        a, b = (each.of(order, len(read)) for each in (a, b))
    frames = _on_common_examples(a, b)
    recorded = [*a.values[: len(a.frames)], *b.values[: len(b.frames)]]
    measures = _measures(frames, metric, task, recorded)
    clusters = _clusters(frames[0])
    if len(a.values) == 1 or len(b.values) == 1:
        result = _one_seed(measures, len(frames[0]), comparisons, clusters)
    else:
        examples = _over_examples(frames, measures, len(a.frames), paired, clusters)
        result = compare_runs(a.values, b.values, examples, comparisons, paired)
    if clusters is not None:
        result = replace(result, examples=len(clusters), clusters=int(clusters.max()) + 1)
    return result, a.values, b.values


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
    frames: Sequence[pd.DataFrame], metric: str, task: Mapping[str, Any], recorded: Sequence[float]
) -> list[Measure]:
    """The metric of each frame, which gives what is recorded."""
    measures = []
    for frame, value in zip(frames, recorded, strict=True):
        known = measure(task["kind"], metric, frame, task.get("labels", ()))
        if known is None or abs(known.once(len(frame)) - value) > _TOLERANCE:
            raise StudyError(f"{metric} could not be computed again from the predictions")
        measures.append(known)
    return measures


def _clusters(frame: pd.DataFrame) -> Clusters | None:
    """The number of each example's cluster; None where each is one by itself."""
    if "cluster" not in frame:
        return None
    numbers, found = pd.factorize(frame["cluster"])
    if len(found) < 2:
        raise StudyError("all evaluation examples belong to one cluster; a comparison needs two")
    return None if len(found) == len(frame) else numbers


def _one_seed(
    measures: Sequence[Measure], n: int, comparisons: int, clusters: Clusters | None
) -> TestResult:
    a, b = (each.scores for each in measures)
    binary = a is not None and b is not None and np.isin([*a, *b], (0.0, 1.0)).all()
    if a is not None and b is not None and binary and clusters is None:
        return compare_binary(a, b, comparisons)
    difference = measures[0].once(n) - measures[1].once(n)
    values = replicates(measures, n, clusters=clusters)
    units = n if clusters is None else int(clusters.max()) + 1
    return compare_bootstrap(difference, values[0] - values[1], units, comparisons)


def _over_examples(
    frames: Sequence[pd.DataFrame],
    measures: Sequence[Measure],
    first: int,
    paired: bool,
    clusters: Clusters | None,
) -> OverExamples:
    """The variance over examples: exact for a mean of scores, else by the paired bootstrap.

    The variance of a mean of clusters is that of their sums of deviations (Liang and Zeger, 1986).
    """
    means = [each.scores for each in measures if each.scores is not None]
    scores = np.stack(means or [frame["score"].to_numpy(float) for frame in frames])
    n = scores.shape[1]
    differs, sums = np.ptp(scores, axis=0) > 0, scores
    if clusters is not None:
        differs = np.bincount(clusters, differs) > 0
        away = scores - scores.mean(axis=1, keepdims=True)
        sums = np.stack([np.bincount(clusters, row) for row in away])
    units = sums.shape[1]
    if means:
        covariance = np.cov(sums) * units / n**2
    else:
        covariance = np.cov(replicates(measures, n, clusters=clusters))
    if paired:
        return OverExamples.paired(covariance, units, int(differs.sum()))
    return OverExamples.of(covariance, first, units, int(differs.sum()))
