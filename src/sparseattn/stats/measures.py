"""Metrics of weighted examples, so that a bootstrap can compute all resamples at once.

A trial's record says what its metric is called, not how it averages. `recognise` therefore finds
the definition that gives the recorded number on the recorded predictions; what it cannot
reproduce, it does not guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Measure", "mean_of", "recognise"]

Array = NDArray[np.float64]

#: Takes how often each example is drawn, [resamples, examples]; gives the metric, [resamples].
Measure = Callable[[Array], Array]

#: Metrics may be computed in single precision where they are recorded.
_TOLERANCE = 2e-6

#: More different labels than this are free text.
_CLASSES = 200

_TAG = re.compile(r"O|[BILUES]-\S+")


def recognise(frame: pd.DataFrame, metric: str, recorded: float) -> Measure | None:
    """The definition that reproduces a recorded metric from a trial's predictions.

    Args:
        frame: The predictions: columns `label`, `prediction` and `score`; a line of tags such as
            `O B-PER` is one label.
        metric: The metric's name.
        recorded: Its value in the trial's record.

    Returns:
        The definition, bound to these predictions; None if none fits.
    """
    once = np.ones((1, len(frame)))
    for measure in _candidates(frame, metric.lower()):
        if abs(float(measure(once)[0]) - recorded) <= _TOLERANCE:
            return measure
    return None


def _candidates(frame: pd.DataFrame, metric: str) -> Iterator[Measure]:
    if "score" in frame and pd.api.types.is_numeric_dtype(frame["score"]):
        yield mean_of(frame["score"].to_numpy(float))
    if {"label", "prediction"} <= set(frame):
        label, guess = frame["label"], frame["prediction"]
        if "pearson" in metric or "spearman" in metric:
            kind = pearson if "pearson" in metric else spearman
            yield kind(label.to_numpy(float), guess.to_numpy(float))
        elif "f1" in metric or "mcc" in metric or "matthews" in metric:
            yield from _of_classes(label, guess, metric)
        if "f1" in metric and label.map(_is_tagged).all():
            yield pooled_f1(*entity_counts(label, guess))


def _of_classes(label: pd.Series, guess: pd.Series, metric: str) -> Iterator[Measure]:
    try:
        expected, predicted = one_hot(label, guess)
    except (TypeError, ValueError):  # lists of labels, or free text: no classes to count
        return
    if "f1" not in metric:
        yield matthews(expected, predicted)
        return
    yield f1(expected, predicted, "macro")
    yield f1(expected, predicted, "weighted")
    if expected.shape[1] <= 2:  # which class is the positive one is not recorded
        yield from (f1(expected, predicted, place) for place in range(expected.shape[1]))


def mean_of(score: Array) -> Measure:
    """The mean of the examples' scores: accuracy, exact match, F1 of answers."""
    return lambda weights: weights @ score / weights.sum(axis=1)


def one_hot(label: pd.Series, guess: pd.Series) -> tuple[Array, Array]:
    """Labels and predictions as indicators of the sorted classes of both.

    Raises:
        TypeError: The values cannot be hashed or sorted.
        ValueError: They are too many to be classes.
    """
    classes = {value: place for place, value in enumerate(sorted(set(label) | set(guess)))}
    if len(classes) > _CLASSES:
        raise ValueError(f"{len(classes)} different labels are no classes")
    both = np.eye(len(classes))[[classes[value] for value in [*label, *guess]]]
    return both[: len(label)], both[len(label) :]


def f1(label: Array, guess: Array, average: str | int) -> Measure:
    """F1 of one class, by its place, or the mean over the classes: "macro" or "weighted"."""

    def measure(weights: Array) -> Array:
        expected, predicted = weights @ label, weights @ guess
        each = _ratio(2 * (weights @ (label * guess)), expected + predicted)
        if isinstance(average, int):
            return each[:, average]
        if average == "weighted":
            return _ratio((each * expected).sum(axis=1), expected.sum(axis=1))
        mean: Array = each.mean(axis=1)
        return mean

    return measure


def pooled_f1(matched: Array, predicted: Array, expected: Array) -> Measure:
    """F1 of counts pooled over the examples, as seqeval's for entities."""
    return lambda weights: _ratio(2 * weights @ matched, weights @ (predicted + expected))


def _is_tagged(text: object) -> bool:
    return isinstance(text, str) and all(_TAG.fullmatch(tag) for tag in text.split())


def entity_counts(label: pd.Series, guess: pd.Series) -> tuple[Array, Array, Array]:
    """Entities that agree, that were predicted and that are expected, in each line of tags."""
    from seqeval.metrics.sequence_labeling import get_entities

    pairs = [
        tuple(set(get_entities(text.split())) for text in pair)
        for pair in zip(label, guess, strict=True)
    ]
    counts = np.array([(len(a & b), len(b), len(a)) for a, b in pairs], dtype=float)
    return counts[:, 0], counts[:, 1], counts[:, 2]


def matthews(label: Array, guess: Array) -> Measure:
    """Matthews' correlation of any number of classes."""

    def measure(weights: Array) -> Array:
        total = weights.sum(axis=1)
        expected, predicted = weights @ label, weights @ guess
        right = weights @ (label * guess).sum(axis=1)
        above = right * total - (expected * predicted).sum(axis=1)
        spread = (total**2 - (expected**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
        return _ratio(above, np.sqrt(np.maximum(spread, 0.0)))

    return measure


def pearson(label: Array, guess: Array) -> Measure:
    """Pearson's correlation."""
    return lambda weights: _correlation(weights, label[None], guess[None])


def spearman(label: Array, guess: Array) -> Measure:
    """Spearman's correlation: ties share their middle rank, within each resample."""
    return lambda weights: _correlation(weights, _ranks(label, weights), _ranks(guess, weights))


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
