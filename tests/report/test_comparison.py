"""Two arms against each other, and the comparisons that a study declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from sparseattn.errors import StudyError
from sparseattn.report import ArmKey, StudyData, compare, questions, summarise, terminal_table
from sparseattn.report.text import interval
from sparseattn.stats import holm
from tests.report.fake import DATA, changed, counting, study


def _with_metric(data: StudyData, name: str, metric) -> StudyData:
    """The same study with another main metric, computed from its predictions."""
    values = [metric(data.predictions(digest)) for digest in data.rows["digest"]]
    return changed(data, headline=name, **{name: values})


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
    spec = {"task": {"kind": "regression"}}
    return StudyData("sts", "", spec, pd.DataFrame(rows), kept.__getitem__, ("spearman",))


def test_a_large_difference_is_called_and_said() -> None:
    found = compare(DATA, "similarity@:", "dense")
    assert found.differs
    means = [DATA.done_in(arm)["accuracy"].mean() for arm in (found.a, found.b)]
    assert found.result.difference == pytest.approx(means[0] - means[1])
    text = str(found)
    assert text.startswith("accuracy: similarity, layers all 74.4, dense 91.7. A difference was")
    assert "−17.2 points, 95% interval −19.5 to −14.9, p < 0.001" in text
    assert "corrected for the 8 comparisons with dense after Holm (< 0.001 before)" in text
    assert "3 seeds, 872 examples" in text
    assert "\n" not in text


def test_no_difference_says_what_would_have_been_found() -> None:
    found = compare(DATA, ArmKey("neighbor", "3:"), "dense")
    assert not found.differs
    assert "No difference was found" in str(found)
    size = f"{100 * found.result.detectable:.1f}"
    assert str(found).endswith(f"Detectable in 80% of such studies: {size}.")


def _answers(data: StudyData, a: str, b: str) -> set[tuple[float, float, str]]:
    """What each way to ask says of two arms: p, its correction, what is detectable."""
    every = [each for question in questions(data) for each in question.comparisons]
    every += [each.comparison for each in summarise(data).arms if each.comparison]
    tables = [each for each in every if (each.a.address, each.b.address) == (a, b)]
    asked = [*tables, compare(data, a, b), compare(data, b, a)]
    return {(round(each.result.p, 9), round(each.p, 9), each.detectable) for each in asked}


def test_a_pair_is_answered_as_in_the_table_that_holds_it() -> None:
    assert len(_answers(DATA, "neighbor@3:", "dense")) == 1
    pairs = [("neighbor", "random"), ("random", "neighbor@:")]
    data = replace(DATA, contrasts={"Which?": pairs})
    assert len(_answers(data, "neighbor@3:", "random@3:")) == 1
    found = compare(data, "random@3:", "neighbor@3:")
    assert found.comparisons == 4
    turned = compare(data, "neighbor@3:", "random@3:")
    assert found.result.difference == -turned.result.difference
    assert (found.result.low, found.means) == (-turned.result.high, turned.means[::-1])
    assert 'corrected for the 4 comparisons of "Which?" after Holm' in str(found)


def test_a_design_that_finds_nothing_says_so_in_the_same_words_everywhere() -> None:
    data = replace(study(seeds=2, examples=10), contrasts={"": [("neighbor@:", "random@:")]})
    found = compare(data, "neighbor@:", "random@:")
    assert found.result.detectable > 0.5
    wide = replace(found, result=replace(found.result, low=-0.8, high=0.9))
    assert "points, too few runs for an interval, p = " in str(wide)
    assert "Detectable in 80% of such studies: too few runs." in str(found)
    assert found.detectable == questions(data)[0].comparisons[0].detectable == "too few runs"


def test_one_seed_is_mcnemars_test_and_says_what_it_leaves_open() -> None:
    data = study(seeds=1)
    found = compare(data, "random@:", "dense")
    a, b = (data.predictions(data.done_in(arm)["digest"].iloc[0]) for arm in (found.a, found.b))
    wins = int((a["score"] > b["score"]).sum()), int((a["score"] < b["score"]).sum())
    assert found.result.p == pytest.approx(stats.binomtest(wins[0], sum(wins)).pvalue)
    assert "exact McNemar; 1 seed" in str(found)
    assert str(found).endswith("not another training run.")
    assert (found.means[0].count, found.means[0].half) == (1, None)


def test_an_arm_left_with_one_seed_is_compared_on_that_seed() -> None:
    data = study(failures=2)
    found = compare(data, "similarity@:", "dense")
    dense = data.done_in(ArmKey("dense")).set_index("seed")["accuracy"]
    assert found.result.test == "exact McNemar"
    assert found.means[1].value == pytest.approx(dense[0])


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
    assert strong.result.caveat == weak.result.caveat
    assert strong.result.test == ("paired bootstrap" if seeds == 1 else "seeds and examples")
    # About as sure as for accuracy: the labels are balanced and so are the errors.
    of_accuracy = compare(study(seeds=seeds), "neighbor@3:", "dense").result.detectable
    scale = 1 if name == "f1" else 2
    assert weak.result.detectable == pytest.approx(scale * of_accuracy, rel=0.25)


@pytest.mark.parametrize("seeds", [1, 3])
def test_correlations_are_bootstrapped(seeds: int) -> None:
    data = _regression(seeds)
    assert not compare(data, "good", "dense").differs
    found = compare(data, "bad", "dense")
    assert found.differs
    assert found.result.difference < -0.2


def test_a_metric_that_cannot_be_computed_again_is_said() -> None:
    with pytest.raises(StudyError, match="quality could not be computed again from the predict"):
        compare(changed(headline="quality", quality=0.123), "random@:", "dense")
    with pytest.raises(StudyError, match="accuracy could not be computed again"):
        compare(changed(accuracy=DATA.rows["accuracy"] + 1e-3), "random@:", "dense")
    with pytest.raises(StudyError, match="spearman could not be computed again"):
        compare(changed(_regression(3), spearman=0.5), "good", "dense")


def read_as(change) -> StudyData:
    """The ordinary study, `change(frame, digest)` its predictions."""
    return replace(DATA, predictions=lambda digest: change(DATA.predictions(digest), digest))


def test_only_common_examples_are_compared_in_any_order() -> None:
    def shuffled(frame: pd.DataFrame, digest: str) -> pd.DataFrame:
        mixed = frame.sample(frac=1.0, random_state=int(digest, 16) % 1000)
        return mixed.reset_index(drop=True)

    one, two = (compare(data, "random@:", "dense") for data in (DATA, read_as(shuffled)))
    assert one.result.p == pytest.approx(two.result.p)
    assert one.result.low == pytest.approx(two.result.low)


def test_predictions_must_share_examples_and_be_one_for_each() -> None:
    apart = read_as(lambda frame, digest: frame.assign(example=digest[:8] + frame["example"]))
    with pytest.raises(StudyError, match="share 0 evaluation examples over their seeds"):
        compare(apart, "random@:", "dense")
    assert "share 0" in summarise(apart).arms[1].reason
    with pytest.raises(StudyError, match="has several predictions for one example"):
        compare(read_as(lambda frame, _: frame.assign(example="dev-0")), "random@:", "dense")


@pytest.mark.parametrize("lost", ["dense", "random"])
def test_lost_predictions_are_a_reason_not_to_compare(lost: str) -> None:
    arm_of = dict(zip(DATA.rows["digest"], DATA.rows["arm"], strict=True))

    def some(frame: pd.DataFrame, digest: str) -> pd.DataFrame:
        if arm_of[digest] == lost:
            raise StudyError(f"predictions of {digest} are damaged")
        return frame

    summary = summarise(read_as(some))
    reasons = [s.reason for s in summary.arms if s.reason]
    assert f"{len(reasons)} arms could not be compared" in str(terminal_table(summary).caption)
    assert len(reasons) == (8 if lost == "dense" else 2)
    assert all("are damaged" in reason for reason in reasons)
    assert summary.comparisons == 8 - len(reasons)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("dense", "dense", "cannot compare arm 'dense' with itself"),
        ("nothing", "dense", "unknown arm 'nothing'; choose from: dense"),
        ("similarity@:", "dense", "arm 'similarity@:' has no finished trial"),
    ],
)
def test_arms_that_cannot_be_compared(a: str, b: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        compare(study(failures=3), a, b)


def test_only_what_is_compared_is_read() -> None:
    data, seen = counting(DATA)
    compare(data, "random@:", "neighbor@:")
    assert len(seen) == len(set(seen)) == 6


def test_a_table_is_corrected_after_holm() -> None:
    summary = summarise(DATA)
    real = [s.comparison for s in summary.arms if s.comparison]
    assert len(real) == summary.comparisons == 8
    assert [each.p for each in real] == pytest.approx(holm([each.result.p for each in real]))
    assert summary.arms[0].comparison is None
    assert {each.verdict for each in real} == {"lower", "none"}


def test_arms_are_shown_in_order_and_the_rest_counted() -> None:
    data, seen = counting(DATA)
    summary = summarise(data, shown=3)
    assert [s.arm.address for s in summary.arms] == ["dense", "neighbor@3:", "neighbor@:"]
    assert (summary.hidden, summary.comparisons, len(seen)) == (6, 2, 9)


def declared(*pairs: tuple[str, str]) -> StudyData:
    return replace(DATA, contrasts={"Does it matter which?": pairs})


def named(data: StudyData) -> tuple[list[tuple[str, str]], list[str]]:
    (question,) = questions(data)
    pairs = [(each.a.address, each.b.address) for each in question.comparisons]
    return pairs, list(question.notes)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("neighbor", "similarity"), "neighbor@3: similarity@3:, neighbor@: similarity@:"),
        (("neighbor@3:", "neighbor@:"), "neighbor@3: neighbor@:"),
        (("neighbor@:", "dense"), "neighbor@: dense"),
        (("dense", "neighbor"), "dense neighbor@3:, dense neighbor@:"),
    ],
)
def test_a_name_stands_for_every_placement_that_both_arms_have(pair, expected: str) -> None:
    pairs, notes = named(declared(pair, pair))  # one declared twice counts once
    assert ", ".join(map(" ".join, pairs)) == expected
    assert not notes


def test_cells_of_a_grid_are_compared_one_by_one() -> None:
    data = declared(("learned", "uniform"), ("learned", "neighbor"))
    names = {"neighbor": "learned s=0.7", "random": "learned s=0.8", "similarity": "uniform s=0.8"}
    names["dependency"] = "learned alone"
    pairs, notes = named(changed(data, arm=data.rows["arm"].replace(names)))
    assert pairs == [(f"learned s=0.8@{at}", f"uniform s=0.8@{at}") for at in ("3:", ":")]
    assert notes == ["'neighbor' is not compared: it has no trial yet"]


def test_pairs_without_a_common_placement_are_said() -> None:
    data = declared(("neighbor", "similarity"))
    placed = {"neighbor": ":", "similarity": "3:"}
    kept = data.rows[data.rows["layers"] == data.rows["arm"].map(placed).fillna("")]
    pairs, notes = named(replace(data, rows=kept))
    assert pairs == []
    assert notes == ["'neighbor' and 'similarity' have no placement and no grid cell in common"]


def test_p_is_corrected_within_a_question() -> None:
    pairs = [("neighbor@:", "similarity@:"), ("random@:", "similarity@:")]
    plain = [compare(DATA, *pair) for pair in pairs]
    (both,) = questions(replace(DATA, contrasts={"both": pairs}))
    for each, alone in zip(both.comparisons, plain, strict=True):
        assert each.result.difference == alone.result.difference
        assert each.result.p == pytest.approx(alone.result.p, rel=1e-12) == alone.p
        assert each.result.detectable > alone.result.detectable
    corrected = holm([alone.p for alone in plain])
    assert [each.p for each in both.comparisons] == pytest.approx(corrected, rel=1e-12)
    for one in questions(replace(DATA, contrasts={"one": pairs[:1], "two": pairs[1:]})):
        assert one.comparisons[0].p == one.comparisons[0].result.p


def test_answers_say_what_was_found() -> None:
    pairs = {"Late?": [("random@3:", "random@:")], "Which?": [("dense", "random@3:")]}
    late, which = (question.answer for question in questions(replace(DATA, contrasts=pairs)))
    assert late.startswith("random, layers from 3 on is higher than random, layers all (+")
    assert which == "No difference was found in the one comparison."


def test_an_interval_as_wide_as_the_whole_scale_says_too_few_runs() -> None:
    assert interval("accuracy", -0.49, 0.5) == "−49.0 to +50.0"
    assert interval("accuracy", -0.5, 0.5) == "too few runs"
    assert interval("loss", -3.0, 4.0) == "−3.000 to +4.000"  # losses have no scale
