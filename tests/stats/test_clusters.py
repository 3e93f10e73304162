"""Examples that belong together are drawn together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from benchmarks.statistics_level import CLUSTERS, clustered_calls

from sparseattn.errors import StudyError
from sparseattn.report import evidence
from sparseattn.stats import mean_of, replicates
from sparseattn.study.arms import ArmKey


def _arms(scores: np.ndarray, cluster: np.ndarray | None) -> list[evidence.Evidence]:
    """Two arms from scores, [2, seeds, examples]."""
    arms = []
    for name, of_arm in zip("ab", scores, strict=True):
        frames = [pd.DataFrame({"label": 1, "prediction": one, "score": one}) for one in of_arm]
        if cluster is not None:
            frames = [frame.assign(cluster=cluster) for frame in frames]
        seeds = tuple(range(len(of_arm)))
        arms.append(evidence.Evidence(ArmKey(name, ":"), of_arm.mean(axis=1), seeds, tuple(frames)))
    return arms


def _compared(scores: np.ndarray, cluster: np.ndarray | None = None, metric: str = "accuracy"):
    arms = _arms(scores, cluster)
    return evidence.test_difference(metric, {"kind": "classification"}, *arms, 1, None)[0]


def _drawn(seeds: int, cluster: np.ndarray, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    shared = draw.normal(0, 1, (2, 1, cluster.max() + 1))[..., cluster]
    return (shared + draw.normal(0.8, 1, (2, seeds, len(cluster))) > 0).astype(float)


@pytest.mark.parametrize("seeds", [1, 3, 7])
def test_clusters_of_one_example_change_nothing(seeds) -> None:
    number = np.random.default_rng(1).permutation(120)
    scores = _drawn(seeds, number)
    assert _compared(scores, number) == _compared(scores)


def test_the_variance_is_that_of_statsmodels() -> None:
    """Runs that are alike leave the examples alone: its cluster-robust error of a mean."""
    number = np.repeat(np.arange(30), np.random.default_rng(2).integers(1, 9, 30))
    of_arms = _drawn(1, number)
    scores = np.repeat(of_arms, 2, axis=1)  # two runs, the same answers
    difference = (of_arms[0] - of_arms[1])[0]
    fitted = sm.OLS(difference, np.ones(len(number))).fit(
        cov_type="cluster", cov_kwds={"groups": number}, use_t=True
    )
    result = _compared(scores, number)
    assert result.difference == pytest.approx(fitted.params[0])
    low, high = fitted.conf_int()[0]
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.p == pytest.approx(fitted.pvalues[0], rel=1e-5)
    assert (result.examples, result.clusters) == (len(number), 30)


def test_whole_clusters_are_resampled() -> None:
    number = np.repeat(np.arange(20), 15)
    values = np.random.default_rng(3).normal(0, 1, 20)[number]  # all of a cluster alike
    (means,) = replicates([mean_of(pd.Series(values))], len(values), 4000, clusters=number)
    of_clusters = values[::15]
    assert means.std() == pytest.approx(of_clusters.std() / np.sqrt(20), rel=0.05)


def test_one_seed_goes_by_clusters() -> None:
    number = np.repeat(np.arange(25), 8)
    scores = _drawn(1, number)
    alone, together = _compared(scores), _compared(scores, number)
    assert alone.test == "exact McNemar"
    assert together.test == "paired bootstrap"
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert together.clusters == 25


def test_few_clusters_that_differ_cannot_give_a_small_p() -> None:
    number = np.repeat(np.arange(5), 40)
    scores = np.ones((2, 3, 200))
    scores[1, :, number == 0] = 0.0
    assert _compared(scores, number).p >= 0.5
    assert _compared(scores).p < 0.01


def test_one_cluster_alone_is_an_error() -> None:
    scores = _drawn(2, np.zeros(50, dtype=int))
    with pytest.raises(StudyError, match="all evaluation examples belong to one cluster"):
        _compared(scores, np.zeros(50, dtype=int))


@pytest.mark.parametrize(
    "setting",
    [CLUSTERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in CLUSTERS[1:3])],
    ids=lambda setting: setting.name,
)
def test_the_level_holds_with_clusters_and_not_without(setting) -> None:
    alone, together = clustered_calls(setting, 200)
    assert together <= 0.08
    assert alone > together
