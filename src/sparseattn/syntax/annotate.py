"""Annotating what a tokenizer makes of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding

from sparseattn.annotations import PARSED
from sparseattn.errors import AnnotationError, DataError
from sparseattn.syntax.cache import ParseCache
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import DEFAULT, Pipeline, Text, needed
from sparseattn.syntax.words import TokenSpans
from sparseattn.words import counted


@dataclass(frozen=True, eq=False)
class Annotator:
    """A tokenizer that also says each token's word, sentence, head and part of speech.

    ```
    annotator = Annotator(tokenizer)
    annotated = dataset.map(lambda rows: annotator(rows["text"], truncation=True), batched=True)
    ```

    Beside the tokenizer's own columns an encoding gets, each as long as `input_ids`:

    - `word_index`: the word that the token belongs to, by character offsets; see
      `sparseattn.syntax.words`. The words of a second text are numbered after those of the first.
    - `sentence_index`: its sentence, numbered likewise.
    - `head_index`: the word that is the syntactic head of its word; a root is its own. It may be a
      word without a token: one that was cut off, or whose only token belongs to another word.
    - `tag_index`, with `tags=True` only: the part of speech of its word, an index of
      `sparseattn.annotations.TAGS`, or -1 where the pipeline gives none.
    - `special_tokens_mask`: 1 for what the tokenizer added, padding included, and 0 for text.

    Tokens that the tokenizer added have -1 in the first three and in `tag_index`; no other token
    has in the first three.

    The two texts of a pair are parsed apart. Given words (`is_split_into_words=True`) are parsed as
    they are. Of a text that truncation shortens, the parse stops after the sentence in which it
    does; see `sparseattn.syntax.pipeline.needed`. Parses are kept on disk by the text parsed, the
    pipeline's name and version and spaCy's version, those with tags beside those without. spaCy is
    loaded when there is one to make.

    Attributes:
        tokenizer: A fast tokenizer.
        pipeline: A spaCy pipeline with a parser: an installed package, or a folder.
        cache_dir: Where parses are kept; `$SPARSEATTN_CACHE`, else `sparseattn` in the user's
            cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
        progress: Called with the number of texts parsed and to parse, after each batch of them.
        tags: Whether parts of speech are given too: a tenth more time to parse.

    Raises:
        AnnotationError: The tokenizer knows no offsets, or the pipeline is not installed.
        MissingExtraError: spaCy is not installed.
    """

    tokenizer: Any
    pipeline: str | Path = DEFAULT
    cache_dir: str | Path | None = None
    progress: Callable[[int, int], None] | None = None
    tags: bool = False
    _cache: ParseCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise AnnotationError(
                f"{type(self.tokenizer).__name__} is no fast tokenizer: it knows no character "
                "offsets, by which words are aligned; load one with AutoTokenizer"
            )
        pipeline = Pipeline.find(self.pipeline, self.tags)
        cache = ParseCache(pipeline, self.cache_dir, self.progress)
        object.__setattr__(self, "_cache", cache)

    @classmethod
    def for_needs(cls, tokenizer: Any, needs: AbstractSet[str], **options: Any) -> Annotator | None:
        """An annotator that gives what patterns read; None where that takes no parse.

        Args:
            tokenizer: A fast tokenizer.
            needs: Names of `sparseattn.annotations.ANNOTATIONS`.
            **options: `pipeline`, `cache_dir` and `progress`.
        """
        return cls(tokenizer, tags="tags" in needs, **options) if needs & PARSED else None

    def __call__(
        self,
        texts: Text | Sequence[Text],
        text_pairs: Text | Sequence[Text] | None = None,
        *,
        is_split_into_words: bool = False,
        return_tensors: str | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """Tokenises and annotates.

        Args:
            texts: A text or several; an empty one has special tokens only.
            text_pairs: As many second texts.
            is_split_into_words: A text is a list of words.
            return_tensors: `"pt"` or `"np"` instead of lists.
            **options: Passed on to the tokenizer: truncation, max_length, stride,
                return_overflowing_tokens, padding and so on.

        Raises:
            DataError: There is no text, or what should be one is not.
            AnnotationError: The pipeline does not load, has no parser, or gives no tags.
        """
        given = [side for side in (texts, text_pairs) if side is not None]
        lists: list[Any] = [side if isinstance(side, str) else list(side) for side in given]
        single = isinstance(texts, str) or (
            is_split_into_words and bool(lists[0]) and isinstance(lists[0][0], str)
        )
        sides: list[Any] = [[side] for side in lists] if single else lists
        _check_texts(sides, str if not is_split_into_words else list)
        encoding: BatchEncoding = self.tokenizer(
            *lists, is_split_into_words=is_split_into_words, **options
        )
        batched = not single or bool(options.get("return_overflowing_tokens"))
        for name, column in self.columns(encoding, *sides).items():
            encoding[name] = column if batched else column[0]
        encoding.convert_to_tensors(return_tensors, prepend_batch_axis=not batched)
        return encoding

    def columns(
        self,
        encoding: BatchEncoding,
        texts: str | Sequence[Text],
        text_pairs: str | Sequence[Text] | None = None,
    ) -> dict[str, list[list[int]]]:
        """The annotations of an encoding that the tokenizer made.

        Args:
            encoding: What the tokenizer returned, windows included.
            texts: What it was given: texts, or lists of words.
            text_pairs: The second texts that it was given.

        Raises:
            DataError: The texts are not those of the encoding.
            AnnotationError: The encoding is not a fast tokenizer's, the pipeline does not load, has
                no parser, or gives no tags.
        """
        given = [side for side in (texts, text_pairs) if side is not None]
        sides: list[Any] = [[side] if isinstance(side, str) else list(side) for side in given]
        _check_texts(sides)
        parts, samples = _match_texts(encoding, sides)
        tokens = [TokenSpans.of(part) for part in parts]
        parses = self._parses(tokens, samples, sides)
        rows = [
            _row(spans, [side[sample] for side in sides], [parse[sample] for parse in parses])
            for spans, sample in zip(tokens, samples, strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _parses(
        self, tokens: Sequence[TokenSpans], samples: Sequence[int], sides: Sequence[Sequence[Text]]
    ) -> list[list[Parse]]:
        """Parses what there are tokens of. The parses of each side."""
        to_parse: list[Text] = []
        for index, side in enumerate(sides):
            ends = [0] * len(side)
            for spans, sample in zip(tokens, samples, strict=True):
                ends[sample] = max(ends[sample], spans.end(index))
            to_parse += [
                needed(text, end) if isinstance(text, str) else text
                for text, end in zip(side, ends, strict=True)
            ]
        parses = self._cache.parses(to_parse)
        return [parses[: len(sides[0])], parses[len(sides[0]) :]][: len(sides)]


def _row(
    tokens: TokenSpans, texts: Sequence[Text], parses: Sequence[Parse]
) -> dict[str, list[int]]:
    """The annotations of one encoding, from its texts and their parses."""
    word, sentence, head, tag = (np.full(len(tokens), -1) for _ in range(4))
    words = sentences = 0
    for index, (text, parse) in enumerate(zip(texts, parses, strict=True)):
        mask = tokens.sides == index
        local = tokens.words(index, text, parse)
        word[mask] = local + words
        sentence[mask] = parse.sentences[local] + sentences
        head[mask] = parse.heads[local] + words
        if parse.tags is not None:
            tag[mask] = parse.tags[local]
        words, sentences = words + len(parse), sentences + parse.count_sentences
    tagged = all(parse.tags is not None for parse in parses)
    return {
        "word_index": word.tolist(),
        "sentence_index": sentence.tolist(),
        "head_index": head.tolist(),
        **({"tag_index": tag.tolist()} if tagged else {}),
        "special_tokens_mask": (tokens.sides < 0).astype(int).tolist(),
    }


def _check_texts(sides: Sequence[Any], kind: type | None = None) -> None:
    """Checks texts and second texts: strings, lists of words (`kind=list`), or either (None)."""
    for side in sides:
        if isinstance(side, str) or len(side) != len(sides[0]):
            count = 1 if isinstance(side, str) else len(side)
            raise DataError(
                f"text_pairs has {counted(count, 'text')} for {counted(len(sides[0]), 'text')}"
            )
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
            f"text {index} is {_type_of(text)}, not a string; for lists of words pass "
            "is_split_into_words=True"
        )
    if not isinstance(words, list | tuple):
        raise DataError(f"text {index} is {_type_of(text)}, not a string or a list of words")
    for word in words:
        if not isinstance(word, str):
            raise DataError(f"text {index} has a word that is {_type_of(word)}, not a string")
        try:
            word.encode()
        except UnicodeEncodeError as error:
            code = ord(word[error.start])
            raise DataError(
                f"text {index} is not valid Unicode: a lone surrogate (U+{code:04X}) at character "
                f"{error.start}"
            ) from None


def _type_of(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _match_texts(encoding: Any, sides: Sequence[Sequence[Any]]) -> tuple[list[Any], list[int]]:
    """The parts of an encoding (`tokenizers.Encoding`), and the index of the text each is of."""
    parts = getattr(encoding, "encodings", None)
    if not parts:
        raise AnnotationError(
            f"a {type(encoding).__name__} without character offsets cannot be annotated; pass what "
            "a fast tokenizer returned, unchanged"
        )
    mapping = encoding.get("overflow_to_sample_mapping")
    samples = list(range(len(parts))) if mapping is None else [int(sample) for sample in mapping]
    if samples[-1] != len(sides[0]) - 1:
        raise DataError(
            f"the encoding is of {counted(samples[-1] + 1, 'text')}; "
            f"{counted(len(sides[0]), 'text')} came with it"
        )
    second = any(1 in part.sequence_ids for part in parts)
    if second and len(sides) == 1:
        raise DataError("the encoding is of pairs of texts; pass the second ones as text_pairs")
    return parts, samples
