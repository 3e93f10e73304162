"""Checking texts, and matching them with encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseattn.errors import AnnotationError, DataError

__all__ = ["check_texts", "match_texts"]


def check_texts(sides: Sequence[Any], kind: type | None = None) -> None:
    """Checks the texts and, if there are two lists of them, the second texts.

    Args:
        sides: One or two lists.
        kind: `str` for texts, `list` for lists of words, None for either.

    Raises:
        DataError: One line that says which text is wrong, and how.
    """
    for side in sides:
        if isinstance(side, str) or len(side) != len(sides[0]):
            count = 1 if isinstance(side, str) else len(side)
            raise DataError(f"text_pairs has {count} texts for {len(sides[0])} texts")
        if not len(side):
            raise DataError("there are no texts to annotate: the list is empty")
        for index, text in enumerate(side):
            _check_text(text, index, kind)


def _check_text(text: Any, index: int, kind: type | None) -> None:
    words = [text] if isinstance(text, str) else text
    if isinstance(text, str) and kind is list:
        raise DataError(f"text {index} is a string; with is_split_into_words=True pass its words")
    if not isinstance(text, str) and kind is str:
        raise DataError(
            f"text {index} is {_named(text)}, not a string; for lists of words pass "
            "is_split_into_words=True"
        )
    if not isinstance(words, list | tuple):
        raise DataError(f"text {index} is {_named(text)}, not a string or a list of words")
    for word in words:
        if not isinstance(word, str):
            raise DataError(f"text {index} has a word that is {_named(word)}, not a string")
        try:
            word.encode()
        except UnicodeEncodeError as error:
            code = ord(word[error.start])
            raise DataError(
                f"text {index} is not valid Unicode: a lone surrogate (U+{code:04X}) at character "
                f"{error.start}"
            ) from None


def _named(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def match_texts(encoding: Any, sides: Sequence[Sequence[Any]]) -> tuple[list[Any], list[int]]:
    """Says which text each part of an encoding is of.

    Args:
        encoding: What a fast tokenizer returned.
        sides: The texts and, if there are, the second texts.

    Returns:
        The parts (`tokenizers.Encoding`), and the index of the text that each is of.

    Raises:
        AnnotationError: The encoding does not know its offsets.
        DataError: It is not that of so many texts.
    """
    parts = getattr(encoding, "encodings", None)
    if not parts:
        raise AnnotationError(
            f"a {type(encoding).__name__} without character offsets cannot be annotated; pass what "
            "a fast tokenizer returned, unchanged"
        )
    mapping = encoding.get("overflow_to_sample_mapping")
    samples = list(range(len(parts))) if mapping is None else [int(sample) for sample in mapping]
    if samples[-1] != len(sides[0]) - 1:
        raise DataError(f"the encoding is of {samples[-1] + 1} texts; {len(sides[0])} were given")
    second = any(1 in part.sequence_ids for part in parts)
    if second and len(sides) == 1:
        raise DataError("the encoding is of pairs of texts; pass the second ones as text_pairs")
    return parts, samples
