"""Metrics of weighted examples, so that a bootstrap can compute all resamples at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sparseattn.tasks.entities import count_entities

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A metric of one run, bound to its predictions.

    Attributes:
        weighted: Takes how often each example counts, [resamples, examples]; gives the metric,
            [resamples].
        scores: The score of each example where the metric is their mean; None elsewhere.
    """

    weighted: Callable[[Array], Array]
    scores: Array | None = None

    def once(self, examples: int) -> float:
        """The metric with each of the `examples` counted once."""
        return float(self.weighted(np.ones((1, examples)))[0])


def measure(
    kind: str, metric: str, predictions: pd.DataFrame, labels: Sequence[str] = ()
) -> Measure | None:
    """The measure that a metric's name stands for.

    Args:
        kind: The kind of task, such as `classification`.
        metric: The name of the metric.
        predictions: A row an example: `label`, `prediction`, `score`, and for questions `exact`. A
            line of tags such as `O B-PER` is one label.
        labels: The classes in the order of their numbers; by default those that occur, sorted.

    Returns:
        The measure; None for a metric that is not of this kind of task.
    """
    make = _MEASURES.get((kind, metric))
    return make(predictions, labels) if make else None


def mean_of(scores: pd.Series) -> Measure:
    """The mean of the examples' scores."""
    values = scores.to_numpy(float)
    return Measure(lambda weights: weights @ values / weights.sum(axis=1), values)


def _mean_of_column(name: str, frame: pd.DataFrame, _labels: Sequence[str]) -> Measure:
    return mean_of(frame[name])


def _one_hot(frame: pd.DataFrame, labels: Sequence[str]) -> tuple[Array, Array]:
    """Labels and predictions as indicators, each [examples, classes]."""
    found = set(frame["label"]) | set(frame["prediction"])
    classes = [*labels, *sorted(found - set(labels))]
    number = {name: place for place, name in enumerate(classes)}
    one_hot = np.eye(len(classes))
    return one_hot[frame["label"].map(number)], one_hot[frame["prediction"].map(number)]


def _f1_of_classes(frame: pd.DataFrame, labels: Sequence[str]) -> Callable[[Array], Array]:
    label, guess = _one_hot(frame, labels)
    return lambda weights: _ratio(
        2 * (weights @ (label * guess)), weights @ label + weights @ guess
    )


def _f1_of_second(frame: pd.DataFrame, labels: Sequence[str]) -> Measure:
    f1 = _f1_of_classes(frame, labels)
    return Measure(lambda weights: f1(weights)[:, -1])


def _f1_macro(frame: pd.DataFrame, labels: Sequence[str]) -> Measure:
    f1 = _f1_of_classes(frame, labels)
    return Measure(lambda weights: f1(weights).mean(axis=1))


def _matthews(frame: pd.DataFrame, labels: Sequence[str]) -> Measure:
    """Matthews' correlation of any number of classes."""
    label, guess = _one_hot(frame, labels)
    right = (label * guess).sum(axis=1)

    def weighted(weights: Array) -> Array:
        total = weights.sum(axis=1)
        expected, predicted = weights @ label, weights @ guess
        above = weights @ right * total - (expected * predicted).sum(axis=1)
        spread = (total**2 - (expected**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
        return _ratio(above, np.sqrt(np.maximum(spread, 0.0)))

    return Measure(weighted)


def _entities(frame: pd.DataFrame) -> tuple[Array, Array, Array]:
    """Entities that agree, that were predicted and that are expected, in each line of tags."""
    pairs = zip(frame["label"], frame["prediction"], strict=True)
    counts = np.array([count_entities(a.split(), b.split()) for a, b in pairs], dtype=float)
    return counts[:, 0], counts[:, 1], counts[:, 2]


def _pooled(metric: str, frame: pd.DataFrame, _labels: Sequence[str]) -> Measure:
    """Precision, recall or F1 of the entities of all examples together."""
    matched, predicted, expected = _entities(frame)
    both = (predicted + expected) / 2
    of = {"precision": predicted, "recall": expected, "f1": both}[metric]
    return Measure(lambda weights: _ratio(weights @ matched, weights @ of))


def _pearson(frame: pd.DataFrame, _labels: Sequence[str]) -> Measure:
    label, guess = (frame[name].to_numpy(float)[None] for name in ("label", "prediction"))
    return Measure(lambda weights: _correlation(weights, label, guess))


def _spearman(frame: pd.DataFrame, _labels: Sequence[str]) -> Measure:
    """Ties share their middle rank, within each resample."""
    label, guess = (frame[name].to_numpy(float) for name in ("label", "prediction"))
    return Measure(lambda w: _correlation(w, _ranks(label, w), _ranks(guess, w)))


def _ranks(values: Array, weights: Array) -> Array:
    order = np.argsort(values, kind="stable")
    group = np.unique(values, return_inverse=True)[1]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(tied, axis=1) - tied / 2
    ranks: Array = middle[:, group]
    return ranks


def _correlation(weights: Array, x: Array, y: Array) -> Array:
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = (weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1)
    return _ratio((weights * x * y).sum(axis=1), np.sqrt(spread))


def _ratio(above: Array, below: Array) -> Array:
    """The quotient, 0 where there is nothing to divide by, as scikit-learn has it."""
    quotient: Array = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return quotient


#: The measure of each metric of each kind of task, as `sparseattn.tasks` computes it.
_MEASURES: dict[tuple[str, str], Callable[[pd.DataFrame, Sequence[str]], Measure]] = {
    ("classification", "accuracy"): partial(_mean_of_column, "score"),
    ("classification", "f1"): _f1_of_second,
    ("classification", "f1_macro"): _f1_macro,
    ("classification", "mcc"): _matthews,
    ("regression", "pearson"): _pearson,
    ("regression", "spearman"): _spearman,
    **{("token-classification", m): partial(_pooled, m) for m in ("f1", "precision", "recall")},
    ("question-answering", "f1"): partial(_mean_of_column, "score"),
    ("question-answering", "exact_match"): partial(_mean_of_column, "exact"),
    **{("ranking", name): partial(_mean_of_column, name) for name in ("ndcg_10", "mrr_10", "map")},
}
