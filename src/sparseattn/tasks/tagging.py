"""A tag for each word of a sentence, such as the named entities in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from sparseattn.errors import DataError
from sparseattn.tasks.data import Split
from sparseattn.tasks.entities import count_entities
from sparseattn.tasks.examples import Labels, Rows, clusters_of, located, names_of, values
from sparseattn.tasks.kind import Encoded, Scores, TaskKind, example_table, model_inputs

#: What the loss leaves out.
IGNORED = -100

_OUTSIDE = "O"
_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")


class TokenClassification(TaskKind):
    """Entities: F1, precision and recall over all entities.

    A word is tagged by its first subword. A word of which the model saw nothing (the sentence was
    cut before it) counts as outside any entity.
    """

    model_class = "AutoModelForTokenClassification"
    counted = "tokens"
    labels: Labels

    def _labels(self, train: Split) -> Labels:
        found = Labels.of(self.task.labels, train, self.task.columns.tags)
        odd = [n for n in found.names if n != _OUTSIDE and not n.startswith(_PREFIXES)]
        if odd or _OUTSIDE not in found.names:
            raise DataError(
                f"tags must be 'O' or begin with {', '.join(_PREFIXES)}; they are: "
                f"{', '.join(found.names)} (numbers need their names in labels)"
            )
        return found

    def rows(self, split: Split, chosen: Sequence[int]) -> Rows:
        columns = self.task.columns
        found: Rows = {
            "example": names_of(split, columns.id, chosen),
            "tokens": values(split, columns.tokens, chosen),
            "tags": [],
            **clusters_of(split, columns.cluster, chosen),
        }
        tags = values(split, columns.tags, chosen)
        for row, tokens, given in zip(chosen, found["tokens"], tags, strict=True):
            words = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
            if not words or not tokens:
                raise located(split, row, columns.tokens, f"expected words, got {tokens!r}")
            if not isinstance(given, list) or len(given) != len(tokens):
                raise located(
                    split, row, columns.tags, f"expected {len(tokens)} tags, got {given!r}"
                )
            found["tags"].append([self._number(split, row, tag) for tag in given])
        return found

    def _number(self, split: Split, row: int, tag: Any) -> int:
        number = self.labels.number(tag)
        if number is None:
            raise located(split, row, self.task.columns.tags, self.labels.misfit(tag))
        return number

    def encode(self, rows: Rows, tokenizer: Any, labelled: bool) -> Encoded:  # noqa: ARG002
        encoding = tokenizer(
            rows["tokens"],
            is_split_into_words=True,
            truncation=True,
            max_length=self.task.max_length,
            return_attention_mask=False,
        )
        words = [_first_subwords(one.word_ids) for one in encoding.encodings]
        labels = [
            [IGNORED if word < 0 else tags[word] for word in places]
            for places, tags in zip(words, rows["tags"], strict=True)
        ]
        columns: Rows = {
            **model_inputs(encoding),
            "labels": labels,
            "words": words,
            "row": list(range(len(labels))),
            "cut": [bool(one.overflowing) for one in encoding.encodings],
        }
        return Encoded(columns, encoding, (rows["tokens"],))

    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        outside = self.labels.names.index(_OUTSIDE)
        predicted = [[outside] * len(tags) for tags in rows["tags"]]
        best = np.asarray(raw).argmax(axis=-1)
        for index, (row, words) in enumerate(zip(inputs["row"], inputs["words"], strict=True)):
            for place, word in enumerate(words):
                if word >= 0:
                    predicted[row][word] = int(best[index, place])
        named = [
            [[self.labels.names[n] for n in tags] for tags in side]
            for side in (rows["tags"], predicted)
        ]
        counts = [count_entities(*pair) for pair in zip(*named, strict=True)]
        matched, guessed, true = (sum(column) for column in zip(*counts, strict=True))
        found = (2 * matched, guessed + true), (matched, guessed), (matched, true)
        return Scores(
            {name: _ratio(*pair) for name, pair in zip(self.metrics, found, strict=True)},
            example_table(
                rows,
                label=[" ".join(tags) for tags in named[0]],
                prediction=[" ".join(tags) for tags in named[1]],
                score=[_ratio(2 * m, g + t, none=1.0) for m, g, t in counts],
            ),
        )


def _first_subwords(word_ids: Sequence[int | None]) -> list[int]:
    """The word that each token begins, -1 for one that begins none."""
    return [
        -1 if word is None or (place > 0 and word_ids[place - 1] == word) else word
        for place, word in enumerate(word_ids)
    ]


def _ratio(part: int, whole: int, none: float = 0.0) -> float:
    """A share; `none` where there is nothing to take it of."""
    return part / whole if whole else none
