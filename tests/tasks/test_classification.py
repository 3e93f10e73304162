from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from sparseattn.errors import DataError
from tests.tasks.material import REVIEWS, prepared_of

RNG = np.random.default_rng(0)


def logits_for(prepared, by_example: np.ndarray) -> np.ndarray:
    """Puts the logits of each example where the model would: the longest input first."""
    return by_example[np.asarray(prepared.evaluation["row"])]


def test_two_classes_are_scored_as_scikit_learn_does(tmp_path):
    prepared = prepared_of(tmp_path)
    logits = RNG.normal(size=(len(REVIEWS), 2))
    scores = prepared.score(logits_for(prepared, logits))
    true, predicted = [row["label"] for row in REVIEWS], logits.argmax(1)
    assert scores.metrics == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(true, predicted),
            "f1": metrics.f1_score(true, predicted),
            "mcc": metrics.matthews_corrcoef(true, predicted),
        }
    )
    table = scores.examples.to_pydict()
    assert table["example"] == [str(n) for n in range(len(REVIEWS))]
    assert table["label"] == [str(n) for n in true]
    assert table["prediction"] == [str(n) for n in predicted]
    assert table["score"] == [float(a == b) for a, b in zip(true, predicted, strict=True)]
    assert prepared.headline == "accuracy"


def test_a_column_says_what_belongs_together(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2, "page": f"p{n // 2}"} for n in range(6)]
    prepared = prepared_of(tmp_path, rows, columns={"cluster": "page"})
    table = prepared.score(logits_for(prepared, np.zeros((6, 2)))).examples
    assert table["cluster"].to_pylist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert (
        "cluster"
        not in prepared_of(tmp_path).score(np.zeros((len(REVIEWS), 2))).examples.column_names
    )


def test_more_classes_have_a_macro_f1_over_all_of_them(tmp_path):
    rows = [{"text": f"text {n}", "label": "abc"[n % 3]} for n in range(9)]
    prepared = prepared_of(tmp_path, rows, labels=["a", "b", "c", "never"])
    logits = RNG.normal(size=(9, 4))
    found = prepared.score(logits_for(prepared, logits)).metrics
    assert list(found) == ["accuracy", "f1_macro", "mcc"]
    expected = metrics.f1_score(
        [n % 3 for n in range(9)],
        logits.argmax(1),
        average="macro",
        labels=range(4),
        zero_division=0.0,
    )
    assert found["f1_macro"] == pytest.approx(expected)


def test_a_headline_that_goes_with_another_number_of_classes(tmp_path):
    message = r"unknown headline 'f1_macro'; choose from: accuracy, f1, mcc$"
    with pytest.raises(DataError, match=message):
        prepared_of(tmp_path, headline="f1_macro")


def test_a_misfit_is_placed(tmp_path):
    rows = [*REVIEWS, {"text": "odd", "label": 7}]
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, REVIEWS, rows)
    assert str(caught.value) == (
        "row 8 of the evaluation split, column 'label': label 7 does not fit; choose from: 0, 1 "
        "(or 0 to 1)"
    )


def test_a_correlation_that_is_not_defined_counts_as_zero(tmp_path):
    rows = [{"text": "a", "label": 1.0}, {"text": "b", "label": 2.0}]
    scores = prepared_of(tmp_path, rows, kind="regression").score(np.ones((2, 1)))
    assert scores.metrics == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("value", ["high", None, True])
def test_a_target_that_is_no_number(tmp_path, value):
    with pytest.raises(DataError, match=f"expected a number, got {value!r}"):
        prepared_of(tmp_path, [{"text": "a", "label": value}], kind="regression")
