"""A class, or a score, for a text or a pair of texts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from sparseattn.tasks.data import Split
from sparseattn.tasks.examples import Labels, Rows, clusters_of, located, names_of, texts, values
from sparseattn.tasks.kind import Encoded, Scores, TaskKind, example_table, model_inputs


class _OfTexts(TaskKind):
    """A label for a text or a pair."""

    model_class = "AutoModelForSequenceClassification"
    counted = "text"

    def rows(self, split: Split, chosen: Sequence[int]) -> Rows:
        columns = self.task.columns
        found: Rows = {
            "example": names_of(split, columns.id, chosen),
            "text": texts(split, columns.text, chosen),
        }
        if columns.text_pair is not None:
            found["text_pair"] = texts(split, columns.text_pair, chosen)
        found |= clusters_of(split, columns.cluster, chosen)
        labels = values(split, columns.label, chosen)
        found["label"] = [
            self.label(split, row, value) for row, value in zip(chosen, labels, strict=True)
        ]
        return found

    @abstractmethod
    def label(self, split: Split, row: int, value: Any) -> float:
        """The target that a value of the data stands for."""

    def encode(self, rows: Rows, tokenizer: Any, labelled: bool) -> Encoded:  # noqa: ARG002
        given = [rows["text"], *([rows["text_pair"]] if "text_pair" in rows else [])]
        encoding = tokenizer(
            *given,
            truncation=True,
            max_length=self.task.max_length,
            return_attention_mask=False,
        )
        columns: Rows = {
            **model_inputs(encoding),
            "labels": rows["label"],
            "row": list(range(len(rows["label"]))),
            "cut": [bool(one.overflowing) for one in encoding.encodings],
        }
        return Encoded(columns, encoding, tuple(given))


class Classification(_OfTexts):
    """A class for a text or a pair: accuracy, F1 and Matthews' correlation.

    With two classes `f1` is that of the second; with more, `f1_macro` is the mean over classes.
    """

    labels: Labels

    def _labels(self, train: Split) -> Labels:
        return Labels.of(self.task.labels, train, self.task.columns.label)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "f1" if len(self.labels.names) == 2 else "f1_macro", "mcc")

    @property
    def config(self) -> dict[str, Any]:
        return {**super().config, "problem_type": "single_label_classification"}

    def label(self, split: Split, row: int, value: Any) -> int:
        """The number of a class."""
        number = self.labels.number(value)
        if number is None:
            raise located(split, row, self.task.columns.label, self.labels.misfit(value))
        return number

    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        predicted = _in_order(np.asarray(raw).argmax(axis=-1), inputs)
        true = np.asarray(rows["label"])
        average = "binary" if len(self.labels.names) == 2 else "macro"
        classes = range(len(self.labels.names))
        f1 = f1_score(true, predicted, labels=classes, average=average, zero_division=0.0)
        found = accuracy_score(true, predicted), f1, matthews_corrcoef(true, predicted)
        names = np.asarray(self.labels.names, dtype=object)
        return Scores(
            dict(zip(self.metrics, map(float, found), strict=True)),
            example_table(
                rows,
                label=names[true],
                prediction=names[predicted],
                score=(true == predicted).astype(float),
            ),
        )


class Regression(_OfTexts):
    """A number for a text or a pair: Pearson's and Spearman's correlation.

    Where a correlation is not defined, because all predictions or all labels are the same, it
    counts as 0.
    """

    @property
    def config(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def label(self, split: Split, row: int, value: Any) -> float:
        """The target."""
        column = self.task.columns.label
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise located(split, row, column, f"expected a number, got {value!r}")
        return float(value)

    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        from scipy.stats import pearsonr, spearmanr

        predicted = _in_order(np.asarray(raw, dtype=float).reshape(-1), inputs)
        true = np.asarray(rows["label"])
        defined = len(true) > 1 and np.ptp(true) > 0 and np.ptp(predicted) > 0
        found = [
            float(correlation(true, predicted).statistic) if defined else 0.0
            for correlation in (pearsonr, spearmanr)
        ]
        return Scores(
            dict(zip(self.metrics, found, strict=True)),
            example_table(rows, label=true, prediction=predicted, score=(true - predicted) ** 2),
        )


def _in_order(predicted: NDArray[Any], inputs: datasets.Dataset) -> NDArray[Any]:
    """Puts one prediction an example back into the order of the data."""
    return predicted[np.argsort(np.asarray(inputs["row"]))]
