"""Texts as their tokens, and the same texts with one token changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.syntax import Annotator
from sparseattn.verifying.subject import Subject

#: A text as the user has it: a string, or the ids of its tokens, special ones included.
Source = str | list[int]

#: Words that are tried in place of a token of a string.
_TRIES = 40


@dataclass(frozen=True, eq=False)
class Text:
    """One text.

    Attributes:
        source: As it was given.
        columns: As a model takes it, without padding. Shape of each: [1, length].
        ordinary: The places of tokens that may be changed.
        spans: Where each token stands in a string: first letter, and one after the last.
    """

    source: Source
    columns: dict[str, Tensor]
    ordinary: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        """How many tokens it has."""
        return self.columns["input_ids"].shape[1]

    @property
    def ids(self) -> list[int]:
        """The ids of its tokens."""
        return [int(index) for index in self.columns["input_ids"][0]]

    def spread(self, count: int) -> list[int]:
        """So many of the places that may be changed, from the first to the last."""
        chosen = torch.linspace(0, len(self.ordinary) - 1, min(count, len(self.ordinary)))
        return [self.ordinary[int(at)] for at in chosen.round()]


class Vocabulary:
    """What tokens are changed into: other tokens of the same texts; strings are read again."""

    def __init__(self, texts: Sequence[Text], tokenizer: Any = None) -> None:
        ids = {text.ids[place]: None for text in texts for place in text.ordinary}
        words = {
            text.source[slice(*text.spans[place])]: None
            for text in texts
            for place in text.ordinary
            if isinstance(text.source, str)
        }
        self._ids, self._words, self._tokenizer = list(ids), list(words), tokenizer

    def changed(self, text: Text, places: Sequence[int]) -> Text | None:
        """A text with other tokens at some places alone; None where no string has such tokens."""
        for place in places:
            options = self._reworded(text, place)
            if (other := next(options, None)) is None:
                return None
            text = other
        return text

    def _reworded(self, text: Text, place: int) -> Iterator[Text]:
        before = text.ids[place]
        if not isinstance(text.source, str):
            for index in [*self._from(self._ids, place), before + 1]:
                if index != before:
                    ids = [*text.ids[:place], index, *text.ids[place + 1 :]]
                    yield _with_ids(text, ids, ids)
        else:
            first, last = text.spans[place]
            for word in islice(self._from(self._words, place), _TRIES):
                source = text.source[:first] + word + text.source[last:]
                read = self._tokenizer(source, return_offsets_mapping=True)
                ids = read["input_ids"]
                pairs = enumerate(zip(ids, text.ids, strict=False))
                if len(ids) == len(text) and [i for i, (a, b) in pairs if a != b] == [place]:
                    spans = tuple(map(tuple, read["offset_mapping"]))
                    yield replace(_with_ids(text, source, ids), spans=spans)

    def _from(self, options: list[Any], place: int) -> list[Any]:
        """The options, beginning somewhere that differs from place to place."""
        start = place * 7 % max(len(options), 1)
        return options[start:] + options[:start]


def _with_ids(text: Text, source: Source, ids: list[int]) -> Text:
    columns = {**text.columns, "input_ids": torch.tensor([ids])}
    return replace(text, source=source, columns=columns)


def read_texts(texts: Any, tokenizer: Any, subject: Subject) -> list[Text]:
    """Reads strings with a tokenizer, which may be None, and lists of ids as they are.

    Raises:
        DataError: There are none, or one is neither, or is empty or too long.
    """
    texts = texts.tolist() if hasattr(texts, "tolist") else texts
    if isinstance(texts, str) or not texts:
        raise DataError(f"texts are a list of strings or of lists of token ids; got {texts!r}")
    annotator = None
    if tokenizer is not None:
        annotator = Annotator.for_needs(tokenizer, subject.plan.needs)
    read = [
        _read_string(text, tokenizer, annotator)
        if isinstance(text, str)
        else _read_ids(text, subject.special)
        for text in texts
    ]
    if subject.longest is not None and (most := max(map(len, read))) > subject.longest:
        raise DataError(
            f"a text of {most:,} tokens is more than the {subject.longest:,} that the model has "
            "positions for"
        )
    for index in (min(min(text.ids) for text in read), max(max(text.ids) for text in read)):
        if index < 0 or index >= (subject.vocabulary or index + 1):
            raise DataError(f"the model has no token {index:,}; ids are 0 to its vocabulary's end")
    return read


def _read_ids(text: Any, special: Collection[int] | None) -> Text:
    """Without known special ids, a text's first and last are taken for them."""
    ids = text.tolist() if hasattr(text, "tolist") else text
    if not isinstance(ids, list | tuple) or any(type(index) is not int for index in ids):
        raise DataError(f"a text is a string or a list of token ids; got {text!r}")
    edges = [*ids[:1], *ids[-1:]] if special is None else special
    ordinary = tuple(place for place, index in enumerate(ids) if index not in edges)
    if not ordinary:
        raise DataError(f"a text of {len(ids)} tokens holds none that could be changed")
    tensor = torch.tensor([ids])
    columns = {"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}
    return Text(list(ids), columns, ordinary)


def _read_string(text: str, tokenizer: Any, annotator: Annotator | None) -> Text:
    if tokenizer is None:
        raise DataError(
            "texts are strings, and nothing says how they become tokens: give tokenizer=, model= "
            "as a name or folder, or lists of token ids"
        )
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} knows no offsets: use a fast tokenizer, or give lists of "
            "token ids"
        )
    read = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    spans, edges = read.pop("offset_mapping"), read["special_tokens_mask"]
    columns = dict(annotator([text])) if annotator else {n: [v] for n, v in read.items()}
    ordinary = tuple(place for place, edge in enumerate(edges) if not edge)
    if not ordinary:
        raise DataError(f"the text {text!r} holds no token that could be changed")
    tensors = {name: torch.tensor(values) for name, values in columns.items()}
    return Text(text, tensors, ordinary, tuple(map(tuple, spans)))
