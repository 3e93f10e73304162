from __future__ import annotations

import random
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from sparseattn.errors import DataError
from sparseattn.tasks.questions import answer_tokens, best_span
from tests.tasks import material
from tests.tasks.material import tokenizer


def question(context: str, *answers: str, text: str = "where is it?") -> dict:
    starts = [context.index(answer) for answer in answers]
    return {
        "question": text,
        "context": context,
        "answers": {"text": list(answers), "answer_start": starts},
    }


prepared_of = partial(material.prepared_of, kind="question-answering")


def long_context(words: int, seed: int) -> str:
    """Words of one subword each, all different."""
    names = [
        name
        for name in tokenizer().get_vocab()
        if name.isascii() and name.isalpha() and name.islower() and len(name) > 3
    ]
    return " ".join(random.Random(seed).sample(sorted(names), words))


def in_windows(tmp_path, seed: int):
    context = long_context(60, seed)
    rows = [question(context, context.split()[0])]
    return context, prepared_of(tmp_path, rows, max_length=32, stride=5)


def oracle(prepared) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that finds the first answer wherever a window holds all of it."""
    length = max(prepared.evaluation["length"])
    starts, ends = np.zeros((2, len(prepared.evaluation), length))
    for index, row in enumerate(prepared.evaluation["row"]):
        window = window_of(prepared, index)
        first, last = answer_tokens(
            window, prepared.rows["starts"][row][0], len(prepared.rows["answers"][row][0])
        )
        if last:
            starts[index, first] = ends[index, last] = 9.0
    return starts, ends


def window_of(prepared, index: int) -> np.ndarray:
    one = prepared.evaluation[index]
    return np.stack([one["starts"], one["ends"]], axis=1)


def scored(tmp_path, predicted: str, *answers: str) -> tuple[float, float]:
    """Exact match and F1 of an answer, through logits that choose exactly it."""
    context = " , ".join([predicted, *answers])
    prepared = prepared_of(tmp_path, [question(context, *answers)], max_length=64)
    window = window_of(prepared, 0)
    starts, ends = np.zeros((2, 1, len(window)))
    first, last = answer_tokens(window, 0, len(predicted))
    starts[0, first] = ends[0, last] = 9.0
    scores = prepared.score((starts, ends))
    assert scores.examples["prediction"].to_pylist() == [predicted]
    assert scores.examples["score"].to_pylist() == [scores.metrics["f1"]]
    assert scores.examples["exact"].to_pylist() == [scores.metrics["exact_match"]]
    return scores.metrics["exact_match"], scores.metrics["f1"]


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        # Case, punctuation and articles do not count.
        ("The Denver Broncos!", ["denver broncos"], 1, 1),
        ("an apple a day", ["apple day"], 1, 1),
        # 1 of 1 word is right, 1 of 2 is found: 2 * 1 * 0.5 / 1.5.
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        # The best of several answers: 2/3 for the first, 2 * 1 * 0.25 / 1.25 for the second.
        ("Broncos", ["Denver Broncos", "team Broncos of Denver"], 0, 2 / 3),
        # Words count as often as they stand on both sides: 2 of 6 are right, 2 of 2 found.
        ("to be or not to be", ["to be"], 0, 0.5),
        ("Carolina", ["Denver"], 0, 0),
        # A hyphen is punctuation and goes; an en dash is not.
        ("twenty-four", ["twentyfour"], 1, 1),
        ("24 – 10", ["24 10"], 0, 2 * (2 / 3) / (2 / 3 + 1)),
    ],
)
def test_hand_worked_scores(tmp_path, predicted, answers, exact, f1):
    assert scored(tmp_path, predicted, *answers) == pytest.approx((exact, f1))


def test_questions_about_one_context_are_a_cluster(tmp_path):
    one, other = "Denver won in 2016.", "Carolina lost in 2016."
    asked = [question(one, "Denver"), question(other, "Carolina"), question(one, "2016")]
    prepared = prepared_of(tmp_path, asked)
    logits = np.zeros((2, len(prepared.evaluation), 64))
    assert prepared.score(logits).examples["cluster"].to_pylist() == [0, 1, 0]


def test_every_answer_of_a_long_context_is_in_some_window(tmp_path):
    rows = []
    for seed in range(40):
        context = long_context(120, seed)
        words = context.split()
        at = random.Random(seed).randrange(len(words) - 2)
        rows.append(question(context, " ".join(words[at : at + 2])))
    prepared = prepared_of(tmp_path, rows, max_length=32, stride=8)
    assert prepared.counts["evaluation_inputs"] > 40 * 4
    assert max(prepared.evaluation["length"]) == 32
    scores = prepared.score(oracle(prepared))
    assert scores.metrics == {"f1": 1.0, "exact_match": 1.0}


def test_windows_share_the_stride_and_cover_the_context(tmp_path):
    context, prepared = in_windows(tmp_path, 1)
    windows = [window_of(prepared, index) for index in range(len(prepared.evaluation))]
    spans = sorted((w[w[:, 0] >= 0] for w in windows), key=lambda span: span[0, 0])
    assert spans[0][0, 0] == 0
    assert spans[-1][-1, 1] == len(context)
    for left, right in pairwise(spans):
        assert len({tuple(t) for t in left} & {tuple(t) for t in right}) == 5


def test_training_windows_point_at_the_answer_or_at_the_first_token(tmp_path):
    context = long_context(60, 2)
    answer = " ".join(context.split()[40:43])
    prepared = prepared_of(tmp_path, [question(context, answer)], max_length=32, stride=5)
    found = []
    for one in prepared.train:
        first, last = one["start_positions"], one["end_positions"]
        if last:
            found.append(tokenizer().decode(one["input_ids"][first : last + 1]))
        else:
            assert first == 0
    assert found
    assert set(found) == {answer}
    assert len(found) < len(prepared.train)


def test_the_best_window_wins_and_the_question_is_never_an_answer(tmp_path):
    context, prepared = in_windows(tmp_path, 3)
    count, length = len(prepared.evaluation), max(prepared.evaluation["length"])
    starts, ends = np.zeros((2, count, length))
    # The highest logits of all stand on the question and on special tokens.
    for index in range(count):
        outside = np.flatnonzero(window_of(prepared, index)[:, 0] < 0)
        starts[index, outside] = ends[index, outside] = 100.0
    for index, score in ((0, 3.0), (count - 1, 5.0)):
        inside = np.flatnonzero(window_of(prepared, index)[:, 0] >= 0)
        starts[index, inside[2]] = ends[index, inside[3]] = score
        window = window_of(prepared, index)
        expected = context[window[inside[2], 0] : window[inside[3], 1]]
        assert prepared.score((starts, ends)).examples["prediction"].to_pylist() == [expected]


def test_answers_are_no_longer_than_allowed(tmp_path):
    context = long_context(20, 4)
    prepared = prepared_of(
        tmp_path, [question(context, context.split()[0])], max_length=64, max_answer=3
    )
    window = window_of(prepared, 0)
    inside = np.flatnonzero(window[:, 0] >= 0)
    starts, ends = np.zeros((2, 1, len(window)))
    starts[0, inside[0]], ends[0, inside[3]], ends[0, inside[2]] = 9.0, 9.0, 1.0
    best = prepared.score((starts, ends)).examples["prediction"][0].as_py()
    assert best == " ".join(context.split()[:3])


def test_the_best_span_is_that_of_a_slow_search():
    rng = np.random.default_rng(5)
    for _ in range(40):
        length, longest = int(rng.integers(1, 12)), int(rng.integers(1, 6))
        starts, ends = rng.normal(size=(2, length))
        inside = rng.random(length) < 0.7
        window = np.stack([np.arange(length) * 2, np.arange(length) * 2 + 1], axis=1)
        window[~inside] = -1
        slow = [
            (starts[i] + ends[j], int(window[i, 0]), int(window[j, 1]))
            for i in range(length)
            for j in range(i, min(i + longest, length))
            if inside[i] and inside[j]
        ]
        first, last, score = best_span(starts, ends, window, longest)
        if slow:
            assert (score, first, last) == max(slow)
        else:
            assert score == -np.inf


def test_a_long_question_is_cut_and_counted(tmp_path):
    context = long_context(20, 6)
    rows = [
        question(context, context.split()[3], text=long_context(50, 7)),
        question(context, context.split()[4]),
    ]
    prepared = prepared_of(tmp_path, rows, max_length=32, stride=4)
    assert 0 < prepared.counts["evaluation_cut"] < 1
    assert max(prepared.evaluation["length"]) == 32


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"text": [], "answer_start": []},
            "every question needs an answer, with its place; this one has none",
        ),
        (
            {"text": ["two"], "answer_start": [0]},
            "the answer 'two' does not stand at character 0 of the context",
        ),
        (
            {"text": [1], "answer_start": [0]},
            "expected lists text and answer_start, got {'text': [1], 'answer_start': [0]}",
        ),
        (
            {"text": ["two"], "answer_start": [None]},
            "expected lists text and answer_start, got {'text': ['two'], 'answer_start': [None]}",
        ),
        ({"text": ["two"]}, "expected lists text and answer_start, got {'text': ['two']}"),
    ],
)
def test_a_question_without_a_usable_answer(tmp_path, answers, message):
    row = {"question": "which?", "context": "one two", "answers": answers}
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, [row])
    assert str(caught.value) == f"row 0 of the train split, column 'answers': {message}"


def test_a_stride_that_leaves_no_room(tmp_path):
    rows = [question("one two", "one")]
    with pytest.raises(DataError, match=r"^stride 30 does not fit: .* choose from: 0 to 18$"):
        prepared_of(tmp_path, rows, max_length=32, stride=30)
