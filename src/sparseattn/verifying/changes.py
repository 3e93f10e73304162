"""Texts with one token changed, and what comes out for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.verifying.judging import Array, Pairs
from sparseattn.verifying.reach import Reach
from sparseattn.verifying.subject import Subject
from sparseattn.verifying.targets import Run
from sparseattn.verifying.texts import Text, Vocabulary

#: Tokens of a batch, and texts of one.
_TOKENS, _TEXTS = 8192, 24


@dataclass(frozen=True, eq=False)
class Changed:
    """A text, and copies of it with one token changed in each.

    Attributes:
        places: The token of each copy.
        copies: The copies.
        reach: What the plan allows in the text.
        reaches: What it allows in the text or in a copy.
        full: Whether each layer allows every pair.
    """

    text: Text
    places: tuple[int, ...]
    copies: tuple[Text, ...]
    reach: Reach
    reaches: tuple[Reach, ...]
    full: tuple[bool, ...]

    @classmethod
    def of(
        cls, text: Text, vocabulary: Vocabulary, subject: Subject, places: Sequence[int]
    ) -> Changed:
        """Changes a text at some places, as far as there are other tokens to put there."""
        compiled = subject.compile(text.columns)
        reach = Reach.of(compiled)
        copies = {place: vocabulary.changed(text, [place]) for place in places}
        kept = {place: copy for place, copy in copies.items() if copy is not None}
        if not kept:
            raise DataError(
                f"no token of the text {str(text.source)[:40]!r} can be changed without changing "
                "those beside it; give texts of common words, or lists of token ids"
            )
        reaches = [reach] * len(kept)
        if not subject.exact:
            others = (Reach.of(subject.compile(copy.columns)) for copy in kept.values())
            reaches = [reach.joined(each, at) for each, at in zip(others, kept, strict=True)]
        full = tuple(rule.is_full for rule in compiled.layers)
        return cls(text, tuple(kept), tuple(kept.values()), reach, tuple(reaches), full)

    def effects(self, starts: Tensor | None = None, seen: Measured | None = None) -> Array:
        """How much each copy changes the last layer's outputs; 0 for out of reach.

        Args:
            starts: How much it changes the first layer's inputs; its own token by default.
                Shape: [length, copies].
            seen: What it really changed, to see how much comes from attention.

        Returns:
            Shape: [length, copies].
        """
        if starts is None:
            starts = torch.eye(len(self.text), dtype=torch.float64)[:, list(self.places)]
        effects = []
        for index, (place, reach) in enumerate(zip(self.places, self.reaches, strict=True)):
            part = (
                0.5 if seen is None else reach.part_of_attention(place, seen.difference[:, index])
            )
            effects.append(reach.changed_by(starts[:, index], part))
        return np.asarray(torch.stack(effects, dim=1).numpy())

    def pairs(self, seen: Measured, starts: Tensor | None = None) -> Pairs:
        """The outputs of tokens under each change; see `effects`."""
        return seen.pairs(self.effects(starts, seen), self.places)


@dataclass(frozen=True, eq=False)
class Measured:
    """What came out for copies of a text.

    Attributes:
        before: For the unchanged text, where each copy stood. Shape: [copies, ...].
        after: For the copies. Shape: [copies, ...].
        noise: The largest difference where nothing had changed.
    """

    before: Array
    after: Array
    noise: float

    @classmethod
    def of(cls, clean: Array, changed: Array) -> Measured:
        """Of two runs of equal shape: nothing is changed in the first, nor in its copy 0."""
        noise = max(float(np.abs(x - clean[0]).max()) for x in (*clean, changed[0]))
        return cls(clean[1:], changed[1:], noise)

    @cached_property
    def difference(self) -> Array:
        """The largest of each token's output. Shape: [length, copies]."""
        return np.asarray(np.abs(self.after - self.before).max(axis=2).T)

    def pairs(self, expected: Array, places: Sequence[int]) -> Pairs:
        """The outputs of tokens beside what was expected of them, where one token was changed."""
        distance = np.abs(np.arange(len(expected))[:, None] - np.array(places))
        scale = float(np.abs(self.before).max())
        difference = self.difference.ravel()
        return Pairs(expected.ravel(), distance.ravel(), difference, self.noise, scale)


def at_a_time(length: int) -> int:
    """Copies of a text that are run in one batch, beside the text itself."""
    return max(2, min(_TEXTS, _TOKENS // length)) - 1


def measured(run: Run, text: Text, copies: Sequence[Text]) -> Measured:
    """Runs a text and its copies, each copy where the unchanged text stood before."""
    parts, size = [], at_a_time(len(text))
    clean: Array = np.empty(0)
    for start in range(0, len(copies), size):
        chunk = copies[start : start + size]
        if len(clean) != len(chunk) + 1:
            clean = np.stack(run([text] * (len(chunk) + 1)))
        parts.append(Measured.of(clean, np.stack(run([text, *chunk]))))
    before, after = (np.concatenate([getattr(x, n) for x in parts]) for n in ("before", "after"))
    return Measured(before, after, max(part.noise for part in parts))
