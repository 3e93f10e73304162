"""Spans of tokens and of characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Span", "answer_tokens", "best_spans", "merged"]


class Span(NamedTuple):
    """A possible answer.

    Attributes:
        text: Its characters in the context.
        score: Logit of its first token as a start plus that of its last as an end.
    """

    text: str
    score: float


def answer_tokens(window: NDArray[np.int64], start: int, length: int) -> tuple[int, int]:
    """The first and last token of an answer, or (0, 0) if the window does not hold all of it.

    Args:
        window: Character offsets of its tokens, -1 outside the context. Shape: [tokens, 2].
        start: The answer's first character.
        length: How many characters it has.

    >>> answer_tokens(np.array([[-1, -1], [0, 3], [4, 7], [8, 9], [-1, -1]]), 4, 5)
    (2, 3)
    """
    inside = np.flatnonzero(window[:, 0] >= 0)
    end = start + length
    if not len(inside) or window[inside[0], 0] > start or window[inside[-1], 1] < end:
        return 0, 0
    first = inside[window[inside, 1] > start][0]
    last = inside[window[inside, 0] < end][-1]
    return int(first), int(last)


def best_spans(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    window: NDArray[np.int64],
    longest: int,
    count: int,
) -> list[tuple[int, int, float]]:
    """The best spans of one window, over all pairs of a start and an end.

    Args:
        starts: Logits. Shape: [tokens].
        ends: Logits. Shape: [tokens].
        window: Character offsets of the tokens, -1 outside the context. Shape: [tokens, 2].
        longest: Most tokens of a span.
        count: How many to return.

    Returns:
        First character, last character (exclusive) and score of each, best first.
    """
    inside = window[:, 0] >= 0
    padded = np.pad(np.where(inside, ends, -np.inf), (0, longest - 1), constant_values=-np.inf)
    banded = np.lib.stride_tricks.sliding_window_view(padded, longest)
    scores = np.where(inside, starts, -np.inf)[:, None] + banded
    flat = scores.ravel()
    kept = min(count, flat.size)
    best = np.argpartition(-flat, kept - 1)[:kept]
    best = best[np.argsort(-flat[best], kind="stable")]
    spans = []
    for place in best[np.isfinite(flat[best])]:
        first, extra = divmod(int(place), longest)
        spans.append((int(window[first, 0]), int(window[first + extra, 1]), float(flat[place])))
    return spans


def merged(spans: Iterable[Span], count: int) -> list[Span]:
    """The best spans with different texts, best first."""
    best: dict[str, Span] = {}
    for span in sorted(spans, key=lambda span: -span.score):
        best.setdefault(span.text, span)
    return list(best.values())[:count]
