"""The parse of a text as arrays: where its words are, their heads, sentences and tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseattn.annotations import TAGS

Ints = NDArray[np.int32]

#: spaCy's names of the parts of speech, but for those that are none (SPACE, the empty one).
_TAGS = {tag.upper(): number for number, tag in enumerate(TAGS)}


@dataclass(frozen=True, eq=False)
class Parse:
    """The words of a text in their order; there is at least one.

    Attributes:
        starts: First character of each word, counted in code points. Shape: [words], int32.
        ends: The character after its last. Shape: [words], int32.
        heads: Index of its syntactic head; a root is its own. Shape: [words], int32.
        sentences: Index of its sentence, from 0 without gaps. Shape: [words], int32.
        tags: Index of its part of speech in `sparseattn.annotations.TAGS`, -1 for none; None where
            no tags were asked for. Shape: [words], int32.
    """

    starts: Ints
    ends: Ints
    heads: Ints
    sentences: Ints
    tags: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def count_sentences(self) -> int:
        """Number of sentences."""
        return int(self.sentences[-1]) + 1

    @classmethod
    def of_doc(cls, doc: Any, tagged: bool = False) -> Parse:
        """Reads a spaCy document, whose whitespace tokens are no words.

        The children of a whitespace token go to its nearest ancestor that is a word; where it has
        none they become roots. A text without words counts as one word, so that the whitespace
        tokens of a byte-level vocabulary have one to belong to; it has no tag.
        """
        table = doc.to_array(["IDX", "LENGTH", "HEAD", "SENT_START", "IS_SPACE"]).astype(np.int64)
        starts, lengths, steps, opens, blank = table.reshape(-1, 5).T
        words = np.flatnonzero(blank == 0)
        if not len(words):
            return cls._of([0], [len(doc.text)], [0], [0], *([[-1]] if tagged else []))
        heads = _skip(np.arange(len(steps)) + steps, blank == 1)[words]
        numbers = np.cumsum(blank == 0) - 1
        heads = np.where(blank[heads] == 0, numbers[heads], np.arange(len(words)))
        sentences = np.unique(np.cumsum(opens == 1)[words], return_inverse=True)[1]
        tags = [[_TAGS.get(doc[at].pos_, -1) for at in words.tolist()]] if tagged else []
        return cls._of(starts[words], (starts + lengths)[words], heads, sentences, *tags)

    @classmethod
    def joined(cls, parts: Sequence[Parse], offsets: Sequence[int]) -> Parse:
        """The parse of a text from those of its pieces, which start at `offsets` (characters)."""
        if len(parts) == 1:
            return parts[0]
        words = np.cumsum([0, *map(len, parts)])
        sentences = np.cumsum([0, *(part.count_sentences for part in parts)])
        moved = [
            [row + step for row, step in zip(part._rows, (at, at, word, sentence, 0), strict=False)]
            for part, at, word, sentence in zip(parts, offsets, words, sentences, strict=False)
        ]
        return cls._of(*(np.concatenate(column) for column in zip(*moved, strict=True)))

    def to_bytes(self) -> bytes:
        """The arrays as little-endian int32, one after the other."""
        return np.stack(self._rows).astype("<i4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, tagged: bool = False) -> Parse:
        """Reads what `to_bytes` wrote of a parse with or without tags."""
        return cls._of(*np.frombuffer(data, dtype="<i4").reshape(4 + tagged, -1))

    @property
    def _rows(self) -> list[Ints]:
        rows = [self.starts, self.ends, self.heads, self.sentences]
        return rows if self.tags is None else [*rows, self.tags]

    @classmethod
    def _of(cls, *columns: Any) -> Parse:
        return cls(*(np.asarray(column, dtype=np.int32) for column in columns))


def _skip(heads: NDArray[np.int64], blank: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Replaces whitespace heads by their own heads, until none but roots are left."""
    while True:
        further = np.where(blank[heads], heads[heads], heads)
        if np.array_equal(further, heads):
            return heads
        heads = further
