"""Random annotated texts, and the padded batches that they make."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from hypothesis import strategies as st

from sparseattn import Plan, TokenBatch
from sparseattn.annotations import TAGS
from sparseattn.counting import SparsityReport

#: Whole numbers, so that cosines tie often and exactly; two equal rows, two parallel, one zero.
EMBEDDING = torch.tensor(
    [
        [0, 0, 0],
        [1, 0, 0],
        [1, 0, 0],
        [2, 2, 0],
        [1, 1, 0],
        [0, 1, 2],
        [-1, 0, 0],
        [1, 2, 2],
        [2, -1, 0],
        [0, 0, 1],
    ],
    dtype=torch.float32,
)


@dataclass(frozen=True)
class Text:
    """One text without padding: a value a token in every field."""

    ids: list[int]
    special: list[bool]
    separators: list[bool]
    words: list[int]
    sentences: list[int]
    heads: list[int]
    tags: list[int]

    def __len__(self) -> int:
        return len(self.ids)


#: Padding looks like an ordinary token: only `valid` tells.
FILL = {
    **dict.fromkeys(("words", "sentences", "heads", "tags"), -1),
    **{"ids": 1, "special": False, "separators": False},
}


def text(length: int, random: Random) -> Text:
    """A text of subwords, words and sentences of random sizes with random trees over them."""
    special = [i == 0 or i == length - 1 or random.random() < 0.1 for i in range(length)]
    words, sentences = [], []
    word, sentence = -1, 0
    for is_special in special:
        if is_special:
            words.append(-1)
            sentences.append(-1)
            continue
        if word < 0 or random.random() < 0.6:
            word += 1
            if word and random.random() < 0.3:
                sentence += 1
        words.append(word)
        sentences.append(sentence)
    where = {w: s for w, s in zip(words, sentences, strict=True) if w >= 0}
    head = {w: random.choice([o for o in where if where[o] == where[w]]) for w in where}
    ids = [random.randrange(len(EMBEDDING)) for _ in special]
    tag = {w: random.randrange(-1, len(TAGS)) for w in where}
    return Text(
        ids=ids,
        special=special,
        separators=[s and i > 0 for i, s in enumerate(special)],
        words=words,
        sentences=sentences,
        heads=[head.get(w, -1) for w in words],
        tags=[tag.get(w, -1) for w in words],
    )


@dataclass(frozen=True)
class Sample:
    """Texts, and the place in the padded batch where each one starts."""

    texts: tuple[Text, ...]
    starts: tuple[int, ...]
    length: int

    @property
    def tokens(self) -> TokenBatch:
        """The padded batch with every annotation."""
        shape = (len(self.texts), self.length)
        valid = torch.zeros(shape, dtype=torch.bool)
        columns = {name: torch.full(shape, fill) for name, fill in FILL.items()}
        for row, (item, start) in enumerate(zip(self.texts, self.starts, strict=True)):
            place = slice(start, start + len(item))
            valid[row, place] = True
            for name, column in columns.items():
                column[row, place] = torch.tensor(getattr(item, name))
        return TokenBatch(valid, embedding=EMBEDDING, **columns)

    def alone(self, row: int) -> Sample:
        """One text without padding."""
        return Sample((self.texts[row],), (0,), len(self.texts[row]))


@st.composite
def samples(draw: st.DrawFn, longest: int = 9, texts: int = 3) -> Sample:
    """One to three texts, each padded on the left, on the right or on both sides."""
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=texts))
    random = Random(draw(st.integers(0, 10**6)))
    padded = max(lengths) + draw(st.integers(0, 2))
    starts = tuple(draw(st.sampled_from([0, padded - n, (padded - n) // 2])) for n in lengths)
    return Sample(tuple(text(n, random) for n in lengths), starts, padded)


#: One fixed batch of some length, for tests that only need a good example.
FIXED = Sample(tuple(text(n, Random(7 + n)) for n in (24, 17, 1)), (0, 7, 3), 26)


def count_plan(plan: Plan, tokens: TokenBatch, heads, windows=None) -> SparsityReport:
    """What a plan allows in a batch, without the names of its patterns."""
    return SparsityReport.of(plan.compile(tokens, heads, windows), [""] * len(heads))
