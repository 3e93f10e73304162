from __future__ import annotations

import pyarrow
import pytest

from sparseattn.errors import DataError
from sparseattn.tasks.data import Split
from sparseattn.tasks.examples import Labels, check_columns, digest, draw, fitting, names_of, texts
from sparseattn.tasks.spec import Subset, TaskSpec


def split(class_names=None, **columns) -> Split:
    return Split("train", pyarrow.table(columns), class_names or {})


WORDS = split(text=["one", "one two", " one  two three ", "", "a b c d"])


def choose(whole: Split, subset: Subset, column: str) -> list[int]:
    return draw(whole, subset, fitting(whole, subset, column))


def test_min_words_counts_before_drawing():
    assert choose(WORDS, Subset(min_words=2), "text") == [1, 2, 4]
    assert choose(split(tokens=[["a"], ["a", "b"]]), Subset(min_words=2), "tokens") == [1]
    drawn = choose(WORDS, Subset(min_words=2, count=2), "text")
    assert len(drawn) == 2
    assert set(drawn) < {1, 2, 4}


def test_a_smaller_draw_is_part_of_a_larger_one_and_seeds_differ():
    many = split(text=["word"] * 500)
    small, large = (choose(many, Subset(count=n, seed=3), "text") for n in (50, 200))
    assert set(small) < set(large)
    assert small == sorted(small)
    assert small != choose(many, Subset(count=50, seed=4), "text")
    # Every row has the same chance: the mean of 200 of 0..499 has a standard deviation of 7.9.
    assert abs(sum(large) / 200 - 249.5) < 32


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (
            Subset(count=4, min_words=2),
            "train.count is 4, but the train split has only 3 examples of 2 words or more",
        ),
        (Subset(count=6), "train.count is 6, but the train split has only 5 examples"),
        (Subset(min_words=9), "the train split has no example of 9 words or more (of 5 rows)"),
    ],
)
def test_a_subset_that_is_not_there(subset, message):
    with pytest.raises(DataError) as caught:
        choose(WORDS, subset, "text")
    assert str(caught.value) == message


def test_an_empty_split():
    empty = Split("evaluation", WORDS.table.slice(0, 0))
    with pytest.raises(DataError, match=r"^the evaluation split has no example \(of 0 rows\)$"):
        choose(empty, Subset(), "text")


def test_a_missing_column_lists_what_is_there():
    task = TaskSpec(kind="classification", data={"hub": "x"}, columns={"text": "sentence"})
    with pytest.raises(DataError) as caught:
        check_columns(task, split(text=["a"], label=[1]))
    assert str(caught.value) == (
        "the train split has no column 'sentence' for 'text'; it has: text, label"
    )
    task = TaskSpec(kind="classification", data={"hub": "x"}, columns={"id": "number"})
    with pytest.raises(DataError, match=r"'number' for 'id' \(named in columns\); it has: text"):
        check_columns(task, split(text=["a"], label=[1]))
    with pytest.raises(DataError) as caught:
        check_columns(task, split(**{"two\nlines": ["a"]}))
    assert str(caught.value).endswith(r"it has: 'two\nlines'")


@pytest.mark.parametrize("value", [None, 3])
def test_a_text_that_is_none(value):
    given = split(text=[value])
    with pytest.raises(DataError) as caught:
        texts(given, "text", [0])
    assert str(caught.value) == (
        f"row 0 of the train split, column 'text': expected text, got {value!r}"
    )


def test_examples_are_named_by_their_row_or_column():
    given = split(text=["a", "b", "c"], n=[7, 8, 7])
    assert names_of(given, None, [0, 2]) == ["0", "2"]
    assert names_of(given, "n", [0, 1]) == ["7", "8"]
    with pytest.raises(DataError, match=r"row 2 .* column 'n': 7 names row 0 already"):
        names_of(given, "n", [0, 1, 2])


@pytest.mark.parametrize(
    ("declared", "class_names", "values", "expected"),
    [
        (("no", "yes"), (), ["yes", "no"], [1, 0]),
        (("no", "yes"), (), [1, 0], [1, 0]),
        (None, ("no", "yes"), [1, 0], [1, 0]),
        # The same names in another order: the data set's own numbers are translated.
        (("no", "yes"), ("yes", "no"), [1, 0], [0, 1]),
        # Other names: numbers are places.
        (("negative", "positive"), ("neg", "pos"), [1, 0], [1, 0]),
        (None, (), ["b", "a", "b"], [1, 0, 1]),
        (None, (), [5, 3, 5], [1, 0, 1]),
        (None, (), [True, False, True], [1, 0, 1]),
        (None, (), [1.0, 0.0], [1, 0]),
    ],
)
def test_values_become_the_numbers_of_classes(declared, class_names, values, expected):
    given = split({"label": class_names}, label=values)
    labels = Labels.of(declared, given, "label")
    assert [labels.number(value) for value in values] == expected
    if declared:
        assert labels.names == declared


NUMBERED = split({"label": ("a", "b", "c")}, label=[0])


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        (
            None,
            split(label=[0.5, 1.0]),
            "column 'label' holds fractions, not classes; is this a regression task?",
        ),
        (None, split(label=["a", "a"]), "column 'label' has 1 different values as classes"),
        (
            None,
            split(label=["a", None]),
            "column 'label' mixes NoneType and str; name the classes in labels",
        ),
        (
            ("no", "yes"),
            NUMBERED,
            "labels no, yes do not fit column 'label', of which the classes are a, b, c",
        ),
    ],
)
def test_a_column_without_a_way_to_number_its_classes(declared, given, message):
    with pytest.raises(DataError) as caught:
        Labels.of(declared, given, "label")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("maybe", "label 'maybe' does not fit; choose from: no, yes (or 0 to 1)"),
        (2, "label 2 does not fit; choose from: no, yes (or 0 to 1)"),
        (
            -1,
            "label -1 does not fit; choose from: no, yes (or 0 to 1); -1 marks a split without "
            "labels",
        ),
        (None, "label None does not fit; choose from: no, yes (or 0 to 1)"),
        ([1], "label [1] does not fit; choose from: no, yes (or 0 to 1)"),
    ],
)
def test_a_label_that_does_not_fit(value, message):
    labels = Labels.of(("no", "yes"), split(label=["no"]), "label")
    assert labels.number(value) is None
    assert labels.misfit(value) == message


def test_the_digest_tells_parts_and_orders_apart():
    assert digest(["a", "b"]) != digest(["b", "a"])
    assert digest("ab", "") != digest("a", "b")
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1})
    assert len(digest()) == 16
