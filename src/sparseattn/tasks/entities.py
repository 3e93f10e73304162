"""Entities in tags such as `B-PER I-PER O`, as CoNLL's `conlleval` reads them. Loads nothing."""

from __future__ import annotations

from collections.abc import Sequence

#: Of BILOU, as in IOBES.
_SAME = {"L": "E", "U": "S"}


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of a sentence: their type, and the first and the last of their words.

    An `I-` that continues nothing begins an entity, and a change of the type does, too.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
    """
    found, start = set(), 0
    before, kind = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        letter, _, name = tag.partition("-")
        letter = _SAME.get(letter, letter)
        if letter in "BSO" or before in "ESO" or name != kind:
            if before != "O":
                found.add((kind, start, place - 1))
            start = place
        before, kind = letter, name
    return found


def count_entities(label: Sequence[str], prediction: Sequence[str]) -> tuple[int, int, int]:
    """Entities of a sentence that agree, that were predicted, and that are expected."""
    true, guessed = entities(label), entities(prediction)
    return len(true & guessed), len(guessed), len(true)
