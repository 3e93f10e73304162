"""Rankings: candidates, pairs, targets, and metrics worked out by hand."""

from __future__ import annotations

from functools import partial
from math import log2

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sparseattn.errors import DataError
from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.trial import TrialSpec
from sparseattn.tasks.prepare import read_examples
from sparseattn.tasks.ready import ready
from sparseattn.tasks.spec import TaskSpec
from sparseattn.training.spec import TrainingSpec
from tests.tasks import material
from tests.tasks.material import task_of, tiny_model, tokenizer, write_lines

GRADED = {"kind": "ranking", "columns": {"relevance": "grade"}}
prepared_of = partial(material.prepared_of, **GRADED)


def candidates(query: str, *grades: int) -> list[dict]:
    return [
        {"query": query, "document": f"{query} {'word ' * place}end", "grade": grade}
        for place, grade in enumerate(grades)
    ]


#: Three queries, their rows mixed.
ROWS = [row for rows in zip(*(candidates(q, 0, 2, 1) for q in "abc"), strict=True) for row in rows]
BLIND = "neighbor(radius=1) & segment(query=1) | segment(key=0) | global(cls, columns=false)"
PAGES = [
    {"title": title, "context": f"page {page} of {title}", "question": f"{n} on {page} {title}"}
    for title, pages in (("cats", 4), ("dogs", 2))
    for page in range(pages)
    for n in range(2)
]
GROUPED = {
    "kind": "ranking",
    "columns": {"query": "question", "document": "context", "group": "title"},
}


def logits(prepared, scores: list[list[float]]) -> np.ndarray:
    """A score for each candidate of each query, in the order of the inputs."""
    pairs = zip(prepared.evaluation["row"], prepared.evaluation["candidate"], strict=True)
    return np.array([[scores[row][candidate]] for row, candidate in pairs])


@pytest.mark.parametrize(
    ("grades", "scores", "ndcg", "reciprocal", "precision"),
    [
        # Ranked 1, 0, 1.
        ([1, 0, 1], [3.0, 2.0, 1.0], (1 + 1 / 2) / (1 + 1 / log2(3)), 1, (1 + 2 / 3) / 2),
        # Ranked 0, 2, 1; scores of 0 and below count as any other.
        (
            [2, 1, 0],
            [-2.0, -3.0, 0.0],
            (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3)),
            1 / 2,
            (1 / 2 + 2 / 3) / 2,
        ),
        # A tie: the relevant one comes last.
        ([1, 0, 0], [0.5, 0.5, 0.5], 1 / 2, 1 / 3, 1 / 3),
        # The eleventh is beyond the reach of two of them.
        ([0] * 10 + [1], [float(-n) for n in range(11)], 0, 0, 1 / 11),
    ],
)
def test_metrics_by_hand(tmp_path, grades, scores, ndcg, reciprocal, precision):
    prepared = prepared_of(tmp_path, candidates("a", *grades), max_length=64)
    scored = prepared.score(logits(prepared, [scores]))
    expected = {"ndcg_10": ndcg, "mrr_10": reciprocal, "map": precision}
    assert scored.metrics == pytest.approx(expected, abs=1e-6)
    assert scored.examples["score"].to_pylist() == [scored.metrics["ndcg_10"]]
    assert scored.examples["label"].to_pylist() == [sum(grade > 0 for grade in grades)]
    if reciprocal:
        assert scored.examples["prediction"].to_pylist() == [round(1 / reciprocal)]


def test_an_example_is_a_query_with_its_candidates(tmp_path):
    prepared = prepared_of(tmp_path, ROWS, headline="mrr_10")
    assert prepared.rows["query"] == ["a", "b", "c"]
    assert prepared.rows["example"] == ["0", "1", "2"]
    assert prepared.counts["evaluation_examples"] == 3
    assert prepared.counts["evaluation_inputs"] == 9
    for one in prepared.evaluation:
        query, documents = (prepared.rows[n][one["row"]] for n in ("query", "documents"))
        pair = tokenizer()(query, documents[one["candidate"]])
        assert one["input_ids"] == pair["input_ids"]
        assert one["token_type_ids"] == pair["token_type_ids"]
    scores = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]
    scored = prepared.score(logits(prepared, scores))
    assert scored.examples["score"].to_pylist() == [1.0, 0.5, 1.0]
    assert scored.metrics["mrr_10"] == pytest.approx(2.5 / 3)


def test_the_loss_is_that_of_a_cross_encoder(tmp_path):
    """A logistic loss on every pair; the highest grade is a target of 1."""
    prepared = prepared_of(tmp_path, ROWS)
    model = prepared.build_model(tiny_model(tmp_path / "model"), 0).eval()
    batch = prepared.collator([prepared.train[n] for n in range(3)])
    assert batch["labels"].tolist() == [[0.0], [1.0], [0.5]]
    with torch.no_grad():
        out = model(**batch)
    p = torch.sigmoid(out.logits)
    loss = -(batch["labels"] * p.log() + (1 - batch["labels"]) * (1 - p).log()).mean()
    assert float(out.loss) == pytest.approx(float(loss), abs=1e-6)


def test_a_count_is_one_of_queries(tmp_path):
    task = task_of(tmp_path, ROWS, train={"count": 2}, evaluation={"min_words": 3}, **GRADED)
    examples = read_examples(task)
    assert examples.counts == (2, 3)
    assert [len(grades) for grades in examples.train["relevance"]] == [3, 3]
    assert examples.evaluation["relevance"] == [[2, 1]] * 3  # of one word and of two: left out


def test_an_id_names_the_query(tmp_path):
    rows = [{**row, "qid": row["query"] * 2} for row in ROWS]
    columns = {"relevance": "grade", "id": "qid"}
    task = task_of(tmp_path, rows, kind="ranking", columns=columns)
    assert read_examples(task).evaluation["example"] == ["aa", "bb", "cc"]
    rows[4]["query"] = "other"
    with pytest.raises(DataError, match=r"row 4 of the train split, column 'query': differs from"):
        read_examples(task_of(tmp_path, rows, kind="ranking", columns=columns))


def test_queries_without_a_relevant_document_are_left_out_and_counted(tmp_path):
    others = [*candidates("a", 0, 1), *candidates("b", 0, 0)]
    examples = read_examples(task_of(tmp_path, ROWS, others, **GRADED))
    assert examples.evaluation["query"] == ["a"]
    assert examples.notices[0] == (
        "1 of 2 evaluation queries have no relevant document and are left out"
    )


@pytest.mark.parametrize(
    ("rows", "others", "message"),
    [
        (ROWS, candidates("a", 0, 0), "no query of the evaluation split has a relevant document"),
        (candidates("a", 0), ROWS, "no document of the training split is relevant"),
        (candidates("a", 1, -1), ROWS, "column 'grade': expected a whole number of 0 or more"),
        (candidates("a", 1, 0.5), ROWS, "column 'grade': expected a whole number of 0 or more"),
    ],
)
def test_grades_that_do_not_fit(tmp_path, rows, others, message):
    with pytest.raises(DataError, match=message):
        read_examples(task_of(tmp_path, rows, others, **GRADED))


def test_candidates_out_of_a_group(tmp_path):
    task = task_of(tmp_path, PAGES, train={"negatives": 2}, **GROUPED)
    examples = read_examples(task)
    for rows, most in ((examples.train, 3), (examples.evaluation, 4)):
        for page, documents, grades in zip(
            PAGES, rows["documents"], rows["relevance"], strict=True
        ):
            assert documents[0] == page["context"]
            assert grades == [1] + [0] * (len(documents) - 1)
            assert len(set(documents)) == len(documents)
            assert len(documents) == (most if page["title"] == "cats" else 2)
            assert all(page["title"] in document for document in documents)
    assert examples.evaluation["cluster"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    # Questions on one page have negatives of their own, and another seed draws others.
    drawn = examples.train["documents"]
    again = task_of(tmp_path, PAGES, train={"negatives": 2, "seed": 1}, **GROUPED)
    assert drawn == read_examples(task).train["documents"]
    assert drawn != read_examples(again).train["documents"]
    assert len({tuple(sorted(documents)) for documents in drawn[:8]}) > 1


def test_a_group_of_one_document_has_nothing_to_rank(tmp_path):
    rows = [*PAGES, {"title": "ants", "context": "one page", "question": "which?"}]
    message = "row 12 of the train split, column 'title': the group 'ants' has one document only"
    with pytest.raises(DataError, match=message):
        read_examples(task_of(tmp_path, rows, **GROUPED))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "ranking"}, "columns of a ranking task need relevance or group; they have neit"),
        (
            {"kind": "ranking", "columns": {"relevance": "r", "group": "g"}},
            "columns of a ranking task need relevance or group; they have relevance and group",
        ),
        ({**GRADED, "train": {"negatives": 1}}, "negatives goes with kind: ranking and columns.g"),
        ({"train": {"negatives": 1}}, "negatives goes with kind: ranking and columns.group"),
        ({"columns": {"group": "g"}}, "a classification task does not read the column 'group'"),
        ({**GRADED, "headline": "f1"}, "no metric 'f1'; choose from: ndcg_10, mrr_10, map"),
    ],
)
def test_a_specification_that_does_not_fit(tmp_path, values, message):
    with pytest.raises(ValidationError, match=message):
        task_of(tmp_path, ROWS, **values)


def test_squad_becomes_a_ranking(tmp_path):
    rows = [{**page, "id": f"q{n}", "answers": {"text": ["page"]}} for n, page in enumerate(PAGES)]
    files = dict.fromkeys(("train", "evaluation"), write_lines(tmp_path / "a.jsonl.gz", rows))
    task = TaskSpec(**ready("squad-ranking", {"data": {"files": files}, "train": {"count": 5}}))
    examples = read_examples(task)
    assert examples.counts == (5, 12)
    assert examples.evaluation["example"][0] == "q0"
    assert [len(documents) for documents in examples.evaluation["documents"]] == [4] * 8 + [2] * 4


def test_a_trial_learns_to_rank_under_the_plan_of_sparse_cross_encoders(tmp_path):
    """What is relevant says "good"; the query is blind to it, so only `[CLS]` can tell."""
    rows = [
        {
            "query": f"what {n}",
            "document": f"{'good' if k == n % 4 else 'bad'} film",
            "grade": k == n % 4,
        }
        for n in range(24)
        for k in range(4)
    ]
    spec = TrialSpec(
        model=str(tiny_model(tmp_path / "model")),
        task=task_of(tmp_path, rows, **GRADED),
        training=TrainingSpec(steps=25, batch_size=16, learning_rate=5e-3),
        pattern=BLIND,
    )
    result = run_trial(spec, cache=TrialCache(tmp_path))
    assert result.headline == "ndcg_10"
    assert result.metrics["mrr_10"] == 1.0
    assert 0.1 < result.sparsity < 0.6
    assert result.predictions["prediction"].to_pylist() == [1] * 24


def test_the_digest_of_other_kinds_is_what_it_was_before_there_were_rankings(tmp_path):
    spec = TrialSpec(model="m", task=task_of(tmp_path), data_fingerprint="f")
    assert spec.digest == "4367e5f4920216ea"
    ranking = TrialSpec(model="m", task=task_of(tmp_path, ROWS, **GRADED), data_fingerprint="f")
    other = {**GRADED, "columns": {"relevance": "other"}}
    assert ranking.digest != spec.digest
    assert (
        ranking.digest
        != TrialSpec(model="m", task=task_of(tmp_path, ROWS, **other), data_fingerprint="f").digest
    )
