"""Documents in the order of their relevance to a query, by a score for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

from sparseattn.errors import DataError
from sparseattn.tasks.data import Split
from sparseattn.tasks.examples import (
    Rows,
    draw,
    fitting,
    located,
    names_of,
    shuffled,
    texts,
    values,
)
from sparseattn.tasks.kind import Encoded, Scores, TaskKind, example_table, model_inputs
from sparseattn.tasks.spec import Subset

#: Documents that nDCG and the reciprocal rank look at.
_DEPTH = 10


class Ranking(TaskKind):
    """Re-ranking by a cross-encoder: nDCG@10, the reciprocal rank at 10 and average precision.

    A model scores pairs of a query and a document. It is trained as sentence-transformers trains a
    `CrossEncoder`, with a logistic loss on each pair; a grade is a target as a share of the highest
    one. An example is a query with its candidates. Of equal scores the less relevant document comes
    first, so that a model that says nothing gains nothing. nDCG's gains are the grades; for the
    other two every grade above 0 is relevant. Queries without a relevant candidate are trained on,
    but not evaluated.
    """

    model_class = "AutoModelForSequenceClassification"
    counted = "document"

    @property
    def config(self) -> dict[str, Any]:
        """See `TaskKind.config`; one label would be a squared error to transformers."""
        return {"num_labels": 1, "problem_type": "multi_label_classification"}

    def choose(self, split: Split, subset: Subset) -> list[int]:
        """See `TaskKind.choose`; counts queries, of which each may have several rows."""
        if self.task.columns.group is not None:
            return super().choose(split, subset)
        rows = fitting(split, subset, self.task.columns.document)
        by_query = self._by_query(split, rows)
        drawn = set(draw(split, subset, [members[0] for members in by_query]))
        return sorted(chain.from_iterable(m for m in by_query if m[0] in drawn))

    def _by_query(self, split: Split, rows: Sequence[int]) -> list[list[int]]:
        """The rows of each query."""
        columns = self.task.columns
        found: dict[Any, list[int]] = {}
        for row, name in zip(rows, values(split, columns.id or columns.query, rows), strict=True):
            found.setdefault(name, []).append(row)
        return list(found.values())

    def rows(self, split: Split, chosen: Sequence[int]) -> Rows:
        """See `TaskKind.rows`; a list of documents and of grades a query."""
        if self.task.columns.group is not None:
            found = self._rows_of_groups(split, chosen)
        else:
            found = self._rows_of_grades(split, chosen)
        if split.name == "train":
            highest = max(chain.from_iterable(found["relevance"]))
            if not highest:
                raise DataError("no document of the training split is relevant")
            found["target"] = [[g / highest for g in grades] for grades in found["relevance"]]
            return found
        return self._with_relevant(found)

    def _with_relevant(self, found: Rows) -> Rows:
        """The queries that have a relevant document; the others have no ranking to be right."""
        kept = [any(grades) for grades in found["relevance"]]
        if not any(kept):
            raise DataError("no query of the evaluation split has a relevant document")
        if missing := kept.count(False):
            self.notices.append(
                f"{missing:,} of {len(kept):,} evaluation queries have no relevant document and "
                "are left out"
            )
        return {
            name: [value for value, keep in zip(column, kept, strict=True) if keep]
            for name, column in found.items()
        }

    def _rows_of_grades(self, split: Split, chosen: Sequence[int]) -> Rows:
        columns = self.task.columns
        assert columns.relevance is not None  # TaskSpec asks for it
        queries, documents = (texts(split, c, chosen) for c in (columns.query, columns.document))
        grades = values(split, columns.relevance, chosen)
        place = {row: i for i, row in enumerate(chosen)}
        found: Rows = {name: [] for name in ("example", "query", "documents", "relevance")}
        by_query = self._by_query(split, chosen)
        leaders = [members[0] for members in by_query]
        found["example"] = names_of(split, columns.id, leaders)
        for members in by_query:
            query = queries[place[members[0]]]
            for row in members:
                if queries[place[row]] != query:
                    raise located(split, row, columns.query, f"differs from row {members[0]}'s")
                _check_grade(split, row, columns.relevance, grades[place[row]])
            found["query"].append(query)
            found["documents"].append([documents[place[row]] for row in members])
            found["relevance"].append([int(grades[place[row]]) for row in members])
        return found

    def _rows_of_groups(self, split: Split, chosen: Sequence[int]) -> Rows:
        """Each row's document, and others of its group; the documents are numbered as clusters."""
        columns = self.task.columns
        subset = self.task.train if split.name == "train" else self.task.evaluation
        every = fitting(split, subset, columns.document)
        document = dict(zip(every, texts(split, columns.document, every), strict=True))
        group = dict(zip(every, values(split, columns.group or "", every), strict=True))
        number: dict[str, int] = {}
        members: dict[Any, dict[int, str]] = {}
        for row in every:
            index = number.setdefault(document[row], len(number))
            members.setdefault(group[row], {})[index] = document[row]
        found: Rows = {
            "example": names_of(split, columns.id, chosen),
            "query": texts(split, columns.query, chosen),
            "documents": [],
            "relevance": [],
            "cluster": [number[document[row]] for row in chosen],
        }
        for row, own in zip(chosen, found["cluster"], strict=True):
            others = members[group[row]].keys() - {own}
            if not others:
                problem = f"the group {group[row]!r} has one document only"
                raise located(split, row, columns.group or "", problem)
            drawn = shuffled(others, subset.seed, row)[: subset.negatives]
            found["documents"].append([members[group[row]][i] for i in (own, *drawn)])
            found["relevance"].append([1, *(0 for _ in drawn)])
        return found

    def encode(self, rows: Rows, tokenizer: Any, labelled: bool) -> Encoded:
        """See `TaskKind.encode`; an input a pair."""
        sizes = list(map(len, rows["documents"]))
        which = [row for row, size in enumerate(sizes) for _ in range(size)]
        queries = [rows["query"][row] for row in which]
        documents = list(chain.from_iterable(rows["documents"]))
        encoding = tokenizer(
            queries,
            documents,
            truncation=True,
            max_length=self.task.max_length,
            return_attention_mask=False,
        )
        columns: Rows = {
            **model_inputs(encoding),
            "row": which,
            "candidate": list(chain.from_iterable(map(range, sizes))),
            "cut": [bool(one.overflowing) for one in encoding.encodings],
        }
        if labelled:
            columns["labels"] = [[target] for target in chain.from_iterable(rows["target"])]
        return Encoded(columns, encoding, (queries, documents))

    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        """See `TaskKind.score`; the rank of the first relevant document is the prediction."""
        given = [np.zeros(len(grades)) for grades in rows["relevance"]]
        places = zip(inputs["row"], inputs["candidate"], np.asarray(raw).reshape(-1), strict=True)
        for row, candidate, score in places:
            given[row][candidate] = score
        ranked = [ranking(s, np.asarray(g)) for s, g in zip(given, rows["relevance"], strict=True)]
        by_query = np.asarray([_metrics(grades) for grades in ranked])
        columns = dict(zip(self.metrics, by_query.T, strict=True))
        return Scores(
            {name: float(column.mean()) for name, column in columns.items()},
            example_table(
                rows,
                label=[sum(grade > 0 for grade in grades) for grades in rows["relevance"]],
                prediction=[int(np.argmax(grades > 0)) + 1 for grades in ranked],
                score=columns[self.headline],
                **columns,
            ),
        )


def ranking(scores: NDArray[np.float64], grades: NDArray[np.int64]) -> NDArray[np.int64]:
    """The grades in the order of the scores; of equal scores the lower grade comes first.

    >>> ranking(np.array([0.1, 0.7, 0.7]), np.array([2, 1, 0])).tolist()
    [0, 1, 2]
    """
    return grades[np.lexsort((grades, -scores))]


def _metrics(ranked: NDArray[np.int64]) -> tuple[float, float, float]:
    """Of grades in their order: nDCG and reciprocal rank at 10, and average precision."""
    from torchmetrics.functional import retrieval

    target = torch.from_numpy(ranked)
    # Places instead of scores: torchmetrics takes no document with a score of 0 or less.
    preds = torch.arange(len(target), 0, -1).float()
    return (
        float(retrieval.retrieval_normalized_dcg(preds, target, top_k=_DEPTH)),
        float(retrieval.retrieval_reciprocal_rank(preds, target > 0, top_k=_DEPTH)),
        float(retrieval.retrieval_average_precision(preds, target > 0)),
    )


def _check_grade(split: Split, row: int, column: str, grade: Any) -> None:
    whole = isinstance(grade, int | float) and float(grade).is_integer()
    if not whole or grade < 0:
        raise located(split, row, column, f"expected a whole number of 0 or more, got {grade!r}")
