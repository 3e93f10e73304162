"""Two arms against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from sparseattn.errors import StudyError
from sparseattn.report import Arm, StudyData, compare, summarise
from sparseattn.report.comparison import Comparison
from sparseattn.stats import holm
from tests.report.fake import counting, study


def _with_metric(data: StudyData, name: str, metric) -> StudyData:
    """The same study with another main metric, computed from its predictions."""
    values = [metric(data.predictions(digest)) for digest in data.rows["digest"]]
    rows = data.rows.assign(headline=name, **{name: values})
    return replace(data, rows=rows, metrics=())


def _regression(seeds: int) -> StudyData:
    """Predictions of a number: `good` follows it closely, `bad` does not."""
    draw, kept, rows = np.random.default_rng(3), {}, []
    truth = draw.normal(size=300)
    for arm, noise in (("dense", 0.3), ("good", 0.3), ("bad", 1.5)):
        for seed in range(seeds):
            guess = truth + draw.normal(0, noise, 300)
            frame = pd.DataFrame({"label": truth, "prediction": guess})
            kept[f"{arm}{seed}"] = frame.assign(example=range(300), score=(truth - guess) ** 2)
            row = {"digest": f"{arm}{seed}", "arm": arm, "layers": "", "seed": seed}
            value = stats.spearmanr(truth, guess)[0]
            rows.append({**row, "status": "done", "headline": "spearman", "spearman": value})
    return StudyData("sts", "", {}, pd.DataFrame(rows), kept.__getitem__)


def test_a_large_difference_is_called_and_said() -> None:
    found = compare(study(), "similarity@:", "dense")
    assert found.differs
    data = study()
    means = [data.done_in(arm)["accuracy"].mean() for arm in (found.a, found.b)]
    assert found.outcome.difference == pytest.approx(means[0] - means[1])
    text = str(found)
    assert text.startswith("accuracy: similarity, layers all 74.4, dense 91.7. A difference was")
    assert "−17.2 points, 95% interval −19.5 to −14.9, p < 0.001" in text
    assert "3 seeds, 872 examples" in text
    assert "\n" not in text


def test_no_difference_says_what_would_have_been_found() -> None:
    found = compare(study(), Arm("neighbor", "3:"), "dense")
    assert not found.differs
    assert "No difference was found" in str(found)
    assert f"A true difference of {100 * found.outcome.detectable:.1f} points" in str(found)


def test_turning_the_arms_turns_the_difference() -> None:
    one, two = compare(study(), "random@:", "dense"), compare(study(), "dense", "random@:")
    assert one.outcome.difference == -two.outcome.difference
    assert one.outcome.p == pytest.approx(two.outcome.p)


def test_one_seed_is_mcnemars_test_and_says_what_it_leaves_open() -> None:
    data = study(seeds=1)
    found = compare(data, "random@:", "dense")
    a, b = (data.predictions(data.done_in(arm)["digest"].iloc[0]) for arm in (found.a, found.b))
    wins = int((a["score"] > b["score"]).sum()), int((a["score"] < b["score"]).sum())
    assert found.outcome.p == pytest.approx(stats.binomtest(wins[0], sum(wins)).pvalue)
    assert "exact McNemar; 1 seed" in str(found)
    assert str(found).endswith("not another training run.")
    assert (found.mean_a.count, found.mean_a.half) == (1, None)


def test_an_arm_left_with_one_seed_is_compared_on_that_seed() -> None:
    data = study(failures=2)
    found = compare(data, "similarity@:", "dense")
    dense = data.done_in(Arm("dense")).set_index("seed")["accuracy"]
    assert found.outcome.test == "exact McNemar"
    assert found.mean_b.value == pytest.approx(dense[0])


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("f1", lambda frame: f1_score(frame["label"], frame["prediction"])),
        ("mcc", lambda frame: matthews_corrcoef(frame["label"], frame["prediction"])),
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_metrics_that_are_no_mean_are_bootstrapped(name: str, metric, seeds: int) -> None:
    data = _with_metric(study(seeds=seeds), name, metric)
    weak, strong = (compare(data, arm, "dense") for arm in ("neighbor@3:", "similarity@:"))
    assert (weak.differs, strong.differs) == (False, True)
    assert strong.outcome.caveat == weak.outcome.caveat
    assert strong.outcome.test == ("paired bootstrap" if seeds == 1 else "seeds and examples")
    # About as sure as for accuracy: the labels are balanced and so are the errors.
    of_accuracy = compare(study(seeds=seeds), "neighbor@3:", "dense").outcome.detectable
    scale = 1 if name == "f1" else 2
    assert weak.outcome.detectable == pytest.approx(scale * of_accuracy, rel=0.25)


@pytest.mark.parametrize("seeds", [1, 3])
def test_correlations_are_bootstrapped(seeds: int) -> None:
    data = _regression(seeds)
    assert not compare(data, "good", "dense").differs
    found = compare(data, "bad", "dense")
    assert found.differs
    assert found.outcome.difference < -0.2


def test_a_metric_that_cannot_be_computed_again_is_said() -> None:
    data = study()
    data = replace(data, rows=data.rows.assign(headline="quality", quality=0.123), metrics=())
    found = compare(data, "random@:", "dense")
    assert found.mean_b.value == pytest.approx(study().rows["accuracy"][:3].mean())
    assert "quality could not be computed again from the predictions" in str(found)


def test_errors_do_not_stand_in_for_a_correlation() -> None:
    data = _regression(3)
    data = replace(data, rows=data.rows.assign(spearman=0.5))
    with pytest.raises(StudyError, match="spearman could not be computed again"):
        compare(data, "good", "dense")


def test_only_common_examples_are_compared_in_any_order() -> None:
    data = study()

    def shuffled(digest: str) -> pd.DataFrame:
        frame = data.predictions(digest).sample(frac=1.0, random_state=int(digest, 16) % 1000)
        return frame.reset_index(drop=True)

    one, two = (
        compare(data, "random@:", "dense"),
        compare(replace(data, predictions=shuffled), "random@:", "dense"),
    )
    assert one.outcome.p == pytest.approx(two.outcome.p)
    assert one.outcome.low == pytest.approx(two.outcome.low)


def test_arms_without_common_examples_are_not_compared() -> None:
    data = study()

    def renamed(digest: str) -> pd.DataFrame:
        frame = data.predictions(digest)
        return frame.assign(example=digest[:8] + frame["example"])

    apart = replace(data, predictions=renamed)
    with pytest.raises(StudyError, match="share 0 evaluation examples over their seeds"):
        compare(apart, "random@:", "dense")
    assert "share 0" in str(summarise(apart).arms[1].comparison)


@pytest.mark.parametrize("lost", ["dense", "random"])
def test_lost_predictions_are_a_reason_not_to_compare(lost: str) -> None:
    data = study()
    arm_of = dict(zip(data.rows["digest"], data.rows["arm"], strict=True))

    def some(digest: str) -> pd.DataFrame:
        if arm_of[digest] == lost:
            raise StudyError(f"predictions of {digest} are damaged")
        return data.predictions(digest)

    summary = summarise(replace(data, predictions=some))
    reasons = [s.comparison for s in summary.arms if isinstance(s.comparison, str)]
    assert len(reasons) == (8 if lost == "dense" else 2)
    assert all("are damaged" in reason for reason in reasons)
    assert summary.comparisons == 8 - len(reasons)


def test_an_example_predicted_twice_is_an_error() -> None:
    data = study()

    def twice(digest: str) -> pd.DataFrame:
        return data.predictions(digest).assign(example="dev-0")

    with pytest.raises(StudyError, match="has several predictions for one example"):
        compare(replace(data, predictions=twice), "random@:", "dense")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("dense", "dense", "cannot compare arm 'dense' with itself"),
        ("nothing", "dense", "unknown arm 'nothing'; choose from: dense"),
    ],
)
def test_arms_that_cannot_be_compared(a: str, b: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        compare(study(), a, b)


def test_an_arm_without_a_finished_trial() -> None:
    with pytest.raises(StudyError, match="arm 'similarity@:' has no finished trial"):
        compare(study(failures=3), "similarity@:", "dense")


def test_only_what_is_compared_is_read() -> None:
    data = study()
    predictions, seen = counting(data)
    compare(replace(data, predictions=predictions), "random@:", "dense")
    assert len(seen) == len(set(seen)) == 6


def test_a_table_is_corrected_after_holm() -> None:
    summary = summarise(study())
    real = [s for s in summary.arms if isinstance(s.comparison, Comparison)]
    assert len(real) == summary.comparisons == 8
    assert [s.p for s in real] == pytest.approx(holm([s.comparison.outcome.p for s in real]))
    assert {s.comparison.outcome.level for s in real} == {0.05 / 8}
    assert summary.baseline.comparison is None
    assert {s.verdict for s in real} == {"lower", "no difference found"}


def test_arms_are_shown_in_order_and_the_rest_counted() -> None:
    data = study()
    predictions, seen = counting(data)
    summary = summarise(replace(data, predictions=predictions), shown=3)
    assert [s.arm.address for s in summary.arms] == ["dense", "neighbor@3:", "neighbor@:"]
    assert (summary.hidden, summary.comparisons, len(seen)) == (6, 2, 9)
