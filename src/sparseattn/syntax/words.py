"""Which word each token belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseattn.syntax.parse import Parse


@dataclass(frozen=True, eq=False)
class TokenSpans:
    """Where the tokens of one encoding come from.

    Attributes:
        sides: 0 for tokens of the first text, 1 for those of the second, -1 for those that the
            tokenizer added. Shape: [tokens], int64.
        spans: First character of each token and the one after its last; in its word if words
            were given. Shape: [tokens, 2], int64.
        given: Which of the given words it comes from. Shape: [tokens], int64.
    """

    sides: NDArray[np.int64]
    spans: NDArray[np.int64]
    given: NDArray[np.int64]

    @classmethod
    def of(cls, part: Any) -> TokenSpans:
        """Reads a `tokenizers.Encoding`."""
        sides = np.array([-1 if side is None else side for side in part.sequence_ids], dtype=int)
        spans = np.array(part.offsets, dtype=int).reshape(-1, 2)
        given = np.array([0 if word is None else word for word in part.word_ids], dtype=int)
        return cls(sides, spans, given)

    def __len__(self) -> int:
        return len(self.sides)

    def end(self, side: int) -> int:
        """The character after the last one of a text that a token stands for."""
        return int(self.spans[self.sides == side, 1].max(initial=0))

    def words(self, side: int, text: str | Sequence[str], parse: Parse) -> NDArray[np.int64]:
        """The word of each token of a text. Shape: [tokens of that text], int64.

        Of given words blank ones are not counted; their tokens belong to the word before.
        """
        mask = self.sides == side
        if isinstance(text, str):
            return words_of_tokens(self.spans[mask], parse)
        solid = np.array([word.strip() != "" for word in text], dtype=np.int64)
        words: NDArray[np.int64] = np.maximum(solid.cumsum() - 1, 0)[self.given[mask]]
        return words


def words_of_tokens(spans: NDArray[Any], parse: Parse) -> NDArray[np.int64]:
    """The word that each token belongs to, by character offsets.

    It is the word with which its span shares the most characters, the first of several. Tokens
    and words need not have the same borders: a token may be a part of a word, span several, hold
    the space before a word, or stand for some bytes of a character. A token that shares no
    character with a word (whitespace, an empty span) belongs to the word that it lies in, else to
    the nearest one on its left, else to the first.

    Args:
        spans: First character of each token and the one after its last. Shape: [tokens, 2], int.
        parse: The words.

    Returns:
        Index of a word of `parse`. Shape: [tokens], int64.

    >>> word = Parse(*np.array([[0, 2, 6], [2, 5, 9], [1, 1, 1], [0, 0, 0]], dtype=np.int32))
    >>> words_of_tokens(np.array([(0, 3), (3, 5), (5, 6), (5, 9)]), word).tolist()  # "don't she"
    [0, 1, 1, 2]
    """
    starts, stops = spans.reshape(-1, 2).T
    first = np.searchsorted(parse.ends, starts, side="right")
    last = np.searchsorted(parse.starts, stops, side="left") - 1
    best = np.where(first <= last, first, np.maximum(first - 1, 0))
    if not np.any(last > first):
        return best
    most = np.full(len(starts), -1)
    for step in range(int((last - first).max()) + 1):
        word = np.minimum(first + step, len(parse) - 1)
        shared = np.minimum(parse.ends[word], stops) - np.maximum(parse.starts[word], starts)
        better = (first + step <= last) & (shared > most)
        best, most = np.where(better, word, best), np.where(better, shared, most)
    return best
