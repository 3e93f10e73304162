"""The statistics against scipy, statsmodels and scikit-learn on known inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from seqeval import metrics as seqeval
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from sparseattn.stats import (
    OverExamples,
    VarianceComponents,
    benjamini_hochberg,
    compare_binary,
    compare_bootstrap,
    compare_runs,
    holm,
    mean_interval,
    mean_of,
    measure,
    replicates,
)
from sparseattn.stats.single_seed import matched_interval
from sparseattn.tasks.spec import METRICS

RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_students(count: int) -> None:
    values = RANDOM.normal(0.9, 0.02, count)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_no_interval() -> None:
    found = mean_interval([0.5, float("nan")])
    assert (found.value, found.count) == (0.5, 1)
    assert found.half is found.low is found.high is None
    assert np.isnan(mean_interval([]).value)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_holm_is_statsmodels(count: int) -> None:
    probabilities = [*RANDOM.uniform(0, 0.2, count), 0.03, 0.03]
    expected = multipletests(probabilities, method="holm")[1]
    assert holm(probabilities) == pytest.approx(list(expected), abs=1e-12)
    assert holm([]) == []


@pytest.mark.parametrize("cells", [(5, 17), (0, 6), (0, 0), (3, 3), (40, 61)])
def test_mcnemar_is_statsmodels(cells: tuple[int, int]) -> None:
    only_a, only_b = cells
    a = np.repeat([1.0, 0.0, 1.0, 0.0], [only_a, only_b, 300, 40])
    b = np.repeat([0.0, 1.0, 1.0, 0.0], [only_a, only_b, 300, 40])
    found = compare_binary(a, b)
    assert found.p == pytest.approx(mcnemar([[300, only_a], [only_b, 40]], exact=True).pvalue)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.low < found.difference < found.high


def test_every_small_table_has_an_interval_that_agrees_with_the_exact_test() -> None:
    for only_a, only_b in ((a, m - a) for m in range(40) for a in range((m + 2) // 2)):
        low, high = matched_interval(only_a, only_b, 40, 0.05)
        p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert (p < 0.05) == (not low <= 0 <= high), (only_a, only_b)
        assert -1 <= low <= (only_a - only_b) / 40 <= high <= 1


@pytest.mark.parametrize(("only_a", "only_b"), [(5, 5), (3, 7), (10, 17), (0, 4)])
def test_where_all_examples_differ_the_interval_is_clopper_and_pearsons(only_a, only_b) -> None:
    exact = stats.binomtest(only_a, only_a + only_b).proportion_ci(0.95, method="exact")
    found = matched_interval(only_a, only_b, only_a + only_b, 0.05)
    assert found == pytest.approx((2 * exact.low - 1, 2 * exact.high - 1), abs=1e-9)


@pytest.mark.parametrize("cells", [(60, 40, 872), (6, 0, 100), (5, 17, 400), (20, 2, 100)])
def test_the_interval_of_one_seed_holds_quantiles_of_a_product_of_two_betas(cells) -> None:
    """The definition of the source, by drawing from it."""
    only_a, only_b, n = cells
    draw, differ = np.random.default_rng(3), only_a + only_b
    sign = 2 * draw.beta(only_a, only_b + 1, 400_000) - 1
    below, above = draw.beta(
        [[differ], [differ + 1]], [[n - differ + 1], [n - differ]], (2, 400_000)
    )
    drawn = np.quantile(sign * np.where(sign > 0, below, above), 0.025)
    assert matched_interval(only_a, only_b, n, 0.05)[0] == pytest.approx(drawn, abs=1e-3)


def test_the_interval_of_one_seed_covers_the_truth() -> None:
    n = 12
    found = {
        (a, b): matched_interval(a, b, n, 0.05) for a in range(n + 1) for b in range(n + 1 - a)
    }
    for differ, first in itertools.product((0.05, 0.3, 0.8, 1.0), (0.5, 0.7, 0.95)):
        shares = differ * first, differ * (1 - first)
        truth = shares[0] - shares[1]
        covered = sum(
            stats.multinomial.pmf([a, b, n - a - b], n, [*shares, 1 - differ])
            for (a, b), (low, high) in found.items()
            if low - 1e-9 <= truth <= high + 1e-9
        )
        assert covered >= 0.95, (differ, first)


def test_one_seed_detects_what_it_says() -> None:
    """The stated difference is found in about 80% of new studies with this disagreement."""
    disagree, n = 0.10, 872
    a = np.zeros(n)
    b = a.copy()
    a[:44], b[44:87] = 1.0, 1.0
    needed = compare_binary(a, b).detectable
    draw = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        only_a, only_b, _rest = draw.multinomial(
            n, [(disagree + needed) / 2, (disagree - needed) / 2, 1 - disagree]
        )
        found += stats.binomtest(only_a, only_a + only_b).pvalue < 0.05
    assert 0.74 < found / 1000 < 0.88


def _frame(label: np.ndarray, prediction: np.ndarray) -> pd.DataFrame:
    score = (label == prediction).astype(float)
    frame = pd.DataFrame({"label": label, "prediction": prediction, "score": score})
    return frame.assign(exact=score, ndcg_10=score, mrr_10=score, map=score)


def _tags(count: int) -> list[list[str]]:
    tags = np.array(["O", "O", "B-PER", "I-PER", "B-LOC"])
    return [list(tags[RANDOM.integers(0, 5, 9)]) for _ in range(count)]


def _of_tags(oracle):
    return lambda y, p: oracle([line.split() for line in y], [line.split() for line in p])


TWO = RANDOM.integers(0, 2, 200), RANDOM.integers(0, 2, 200)
FOUR = RANDOM.integers(0, 4, 200), RANDOM.integers(0, 4, 200)
WORDS = np.array(["no", "yes"])[TWO[0]], np.array(["no", "yes"])[TWO[1]]
REAL = RANDOM.normal(size=200).round(1), RANDOM.normal(size=200).round(1)
LINES = [np.array([" ".join(line) for line in _tags(60)]) for _ in range(2)]
DEFINITIONS = [
    ("classification", "accuracy", TWO, (), sk.accuracy_score),
    ("classification", "f1", TWO, (), sk.f1_score),
    ("classification", "f1", WORDS, (), lambda y, p: sk.f1_score(y, p, pos_label="yes")),
    ("classification", "f1", WORDS, ("yes", "no"), lambda y, p: sk.f1_score(y, p, pos_label="no")),
    ("classification", "f1_macro", FOUR, (), lambda y, p: sk.f1_score(y, p, average="macro")),
    ("classification", "mcc", TWO, (), sk.matthews_corrcoef),
    ("classification", "mcc", FOUR, (), sk.matthews_corrcoef),
    ("regression", "pearson", REAL, (), lambda y, p: stats.pearsonr(y, p)[0]),
    ("regression", "spearman", REAL, (), lambda y, p: stats.spearmanr(y, p)[0]),
    ("token-classification", "f1", LINES, (), _of_tags(seqeval.f1_score)),
    ("token-classification", "precision", LINES, (), _of_tags(seqeval.precision_score)),
    ("token-classification", "recall", LINES, (), _of_tags(seqeval.recall_score)),
    ("question-answering", "f1", TWO, (), sk.accuracy_score),
    ("question-answering", "exact_match", TWO, (), sk.accuracy_score),
    *(("ranking", name, TWO, (), sk.accuracy_score) for name in ("ndcg_10", "mrr_10", "map")),
]


@pytest.mark.parametrize(("kind", "metric", "pair", "labels", "oracle"), DEFINITIONS)
def test_a_metric_of_resamples_is_that_of_the_repeated_rows(
    kind, metric, pair, labels, oracle
) -> None:
    frame = _frame(*pair)
    found = measure(kind, metric, frame, labels)
    assert found.once(len(frame)) == pytest.approx(oracle(*pair), abs=1e-9)
    for seed in range(3):
        rows = np.random.default_rng(seed).integers(0, len(frame), len(frame))
        weights = np.bincount(rows, minlength=len(frame))[None].astype(float)
        expected = oracle(frame["label"].iloc[rows], frame["prediction"].iloc[rows])
        assert found.weighted(weights)[0] == pytest.approx(expected, abs=1e-9)


def test_every_metric_of_the_tasks_has_a_measure_and_no_other() -> None:
    known = {(kind, metric) for kind, metric, *_ in DEFINITIONS}
    assert known == {(kind, metric) for kind, names in METRICS.items() for metric in names}
    assert measure("classification", "pearson", _frame(*TWO)) is None


def test_a_class_that_never_occurs_counts_in_the_macro_mean() -> None:
    """As in the task, whose labels are known before any prediction."""
    found = measure("classification", "f1_macro", _frame(*WORDS), ("no", "perhaps", "yes"))
    of_two = sk.f1_score(*WORDS, average="macro")
    assert found.once(200) == pytest.approx(2 / 3 * of_two)


def test_the_bootstrap_knows_the_error_of_a_mean() -> None:
    frame = _frame(np.ones(500), RANDOM.integers(0, 2, 500))
    accuracy, found = frame["score"].mean(), mean_of(frame["score"])
    values = replicates([found, found], 500)
    assert values.shape == (2, 2000)
    assert (values[0] == values[1]).all()  # the same resamples for every run
    assert values[0].std() == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 500), rel=0.06)
    assert (replicates([found], 500) == values[:1]).all()


def test_the_bootstrap_p_of_a_known_shift() -> None:
    spread = RANDOM.normal(0, 0.01, 20_000)
    found = compare_bootstrap(0.02, 0.02 + spread, 500)
    assert found.p == pytest.approx(2 * stats.norm.sf(2), rel=0.15)
    assert found.detectable == pytest.approx(2.8 * 0.01, rel=0.03)
    assert compare_bootstrap(0.0, spread, 500).p == 1.0


def test_the_bootstrap_interval_agrees_with_its_p() -> None:
    """Skewed resamples: the ends of a percentile interval turn elsewhere than the test."""
    skewed = RANDOM.gamma(1.5, 0.01, 2000)
    skewed -= skewed.mean()
    decided = set()
    for size in np.linspace(-0.05, 0.05, 401):
        found = compare_bootstrap(size, size + skewed, 500)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        decided.add(found.p < 0.05)
    assert decided == {True, False}


def _spread(runs: tuple[float, float], counts: tuple[int, int], common: float, variance: float):
    return VarianceComponents(runs, counts, OverExamples(variance, common, 872, 100))


def test_without_common_variance_it_is_welchs_test() -> None:
    a, b = RANDOM.normal(0.9, 0.01, 4), RANDOM.normal(0.85, 0.03, 3)
    examples = OverExamples(0.0, 0.0, 872, 100)
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = compare_runs(a, b, examples)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    ends = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-6)


def test_without_luck_it_is_the_test_over_examples() -> None:
    spread = _spread((0.0, 0.0), (3, 3), common=1e-4, variance=1e-4)
    assert spread.p(0.025) == pytest.approx(2 * stats.t.sf(2.5, 871), rel=1e-6)


def test_the_interval_ends_where_p_is_005() -> None:
    spread = _spread((2e-5, 5e-5), (3, 5), common=3e-5, variance=6e-5)
    assert spread.p(spread.half_width(0.05)) == pytest.approx(0.05, rel=1e-6)
    assert spread.p(0.0) == 1.0
    assert spread.p(0.01) > spread.p(0.02) > spread.p(0.04)


def test_the_spread_over_examples_is_taken_apart() -> None:
    """Runs share an example's difficulty; arms differ in which examples suit them."""
    draw, runs, n = np.random.default_rng(1), 4, 200_000
    ease, own = draw.normal(0, 2, n), draw.normal(0, 1, (2, n))
    scores = np.vstack([ease + own[arm] + draw.normal(0, 3, (runs, n)) for arm in (0, 1)])
    found = OverExamples.of(np.cov(scores) / n, runs, n, n)
    assert found.common * n == pytest.approx(2 * 1.0, rel=0.1)
    assert found.variance * n == pytest.approx(2 * (1 + 9 / runs), rel=0.03)


def test_equal_predictions_differ_in_nothing() -> None:
    values = np.array([0.9, 0.9])
    found = compare_runs(values, values, OverExamples(0.0, 0.0, 100, 0))
    assert (found.p, found.difference) == (1.0, 0.0)
    assert found.detectable == pytest.approx(6 / 100)


def test_few_differing_examples_cannot_give_a_small_p() -> None:
    found = compare_runs(np.array([1.0, 1.0]), np.array([0.0, 0.0]), OverExamples(0.0, 0.0, 3, 3))
    assert found.p == 0.25
    assert found.low <= 0 <= found.high


def test_more_comparisons_need_a_larger_difference() -> None:
    a, b = RANDOM.normal(0.9, 0.01, 3), RANDOM.normal(0.9, 0.01, 3)
    examples = OverExamples(1e-5, 1e-5, 872, 90)
    one, eight = (compare_runs(a, b, examples, comparisons) for comparisons in (1, 8))
    assert one.detectable < eight.detectable
    assert one.p == eight.p


def test_benjamini_and_hochberg_is_that_of_statsmodels() -> None:
    p = RANDOM.random(40) ** 3
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    assert benjamini_hochberg([]) == []


def test_without_common_variance_pairs_are_the_paired_t_test() -> None:
    a, b = RANDOM.normal(0.9, 0.02, 7), RANDOM.normal(0.85, 0.02, 7)
    found = compare_runs(a, b, OverExamples(0.0, 0.0, 872, 100), paired=True)
    expected = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    ends = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-6)


def test_the_spread_over_examples_of_pairs_is_taken_apart() -> None:
    """What two runs with one seed share of an example is no spread of their difference."""
    draw, pairs, n = np.random.default_rng(2), 6, 200_000
    own, seed = draw.normal(0, 1, (2, 1, n)), draw.normal(0, 2, (pairs, n))
    scores = (own + seed + draw.normal(0, 3, (2, pairs, n))).reshape(2 * pairs, n)
    covariance = np.cov(scores) / n
    found = OverExamples.paired(covariance, n, n)
    assert found.common * n == pytest.approx(2 * 1.0, rel=0.1)
    assert found.variance * n == pytest.approx(2 * (1 + 9 / pairs), rel=0.03)
    assert found.variance == pytest.approx(OverExamples.of(covariance, pairs, n, n).variance)
