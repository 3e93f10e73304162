"""Annotating what a tokenizer makes of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding

from sparseattn.errors import AnnotationError
from sparseattn.syntax.align import Tokens
from sparseattn.syntax.cache import ParseCache
from sparseattn.syntax.extent import needed
from sparseattn.syntax.library import Library
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import DEFAULT, Pipeline, Text
from sparseattn.syntax.texts import check_texts, match_texts

__all__ = ["Annotator"]


@dataclass(frozen=True, eq=False)
class Annotator:
    """A tokenizer that also says each token's word, sentence and syntactic head.

    ```
    annotator = Annotator(tokenizer)
    annotated = dataset.map(lambda rows: annotator(rows["text"], truncation=True), batched=True)
    ```

    Beside the tokenizer's own columns an encoding gets, each as long as `input_ids`:

    - `word_index`: the word that the token belongs to, by character offsets; see
      `sparseattn.syntax.align`. The words of a second text are numbered after those of the first.
    - `sentence_index`: its sentence, numbered likewise.
    - `head_index`: the word that is the syntactic head of its word; a root is its own. It may be a
      word without a token: one that was cut off, or whose only token belongs to another word.
    - `special_tokens_mask`: 1 for what the tokenizer added, padding included, and 0 for text.

    Tokens that the tokenizer added have -1 in the first three; no other token has.

    The two texts of a pair are parsed apart. Given words (`is_split_into_words=True`) are parsed as
    they are. Of a text that truncation shortens, the parse stops after the sentence in which it
    does; see `sparseattn.syntax.extent.needed`. Parses are kept on disk by the text parsed, the
    pipeline's name and version and spaCy's version. spaCy is loaded when there is one to make.

    Attributes:
        tokenizer: A fast tokenizer.
        pipeline: A spaCy pipeline with a parser: an installed package, or a folder.
        cache_dir: Where parses are kept; `$SPARSEATTN_CACHE`, else `sparseattn` in the user's
            cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
        progress: Called with the number of texts parsed and to parse, after each batch of them.

    Raises:
        AnnotationError: The tokenizer knows no offsets, or the pipeline is not installed.
        MissingExtraError: spaCy is not installed.
    """

    tokenizer: Any
    pipeline: str | Path = DEFAULT
    cache_dir: str | Path | None = None
    progress: Callable[[int, int], None] | None = None
    _library: Library = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the arguments."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise AnnotationError(
                f"{type(self.tokenizer).__name__} is no fast tokenizer: it knows no character "
                "offsets, by which words are aligned; load one with AutoTokenizer"
            )
        cache = ParseCache.within(self.cache_dir)
        library = Library(Pipeline.find(self.pipeline), cache, self.progress)
        object.__setattr__(self, "_library", library)

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
            AnnotationError: The pipeline does not load, or has no parser.
        """
        given = [_listed(side) for side in (texts, text_pairs) if side is not None]
        single = isinstance(texts, str) or (
            is_split_into_words and bool(given[0]) and isinstance(given[0][0], str)
        )
        sides: list[Any] = [[side] for side in given] if single else given
        check_texts(sides, str if not is_split_into_words else list)
        encoding: BatchEncoding = self.tokenizer(
            *given, is_split_into_words=is_split_into_words, **options
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
            AnnotationError: The encoding is not a fast tokenizer's, the pipeline does not load, or
                has no parser.
        """
        sides = [_listed(side, single=True) for side in (texts, text_pairs) if side is not None]
        check_texts(sides)
        parts, samples = match_texts(encoding, sides)
        tokens = [Tokens.of(part) for part in parts]
        parses = self._parses(tokens, samples, sides)
        rows = [
            _row(one, [side[sample] for side in sides], [parse[sample] for parse in parses])
            for one, sample in zip(tokens, samples, strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _parses(
        self, tokens: Sequence[Tokens], samples: Sequence[int], sides: Sequence[Sequence[Text]]
    ) -> list[list[Parse]]:
        """Parses what there are tokens of. The parses of each side."""
        wanted: list[Text] = []
        for index, side in enumerate(sides):
            ends = [0] * len(side)
            for one, sample in zip(tokens, samples, strict=True):
                ends[sample] = max(ends[sample], one.end(index))
            wanted += [
                needed(text, end) if isinstance(text, str) else text
                for text, end in zip(side, ends, strict=True)
            ]
        found = self._library.parses(wanted)
        return [found[: len(sides[0])], found[len(sides[0]) :]][: len(sides)]


def _listed(texts: Any, single: bool = False) -> Any:
    if isinstance(texts, str):
        return [texts] if single else texts
    return list(texts)


def _row(tokens: Tokens, texts: Sequence[Text], parses: Sequence[Parse]) -> dict[str, list[int]]:
    """The annotations of one encoding, from its texts and their parses."""
    word, sentence, head = (np.full(len(tokens), -1) for _ in range(3))
    words = sentences = 0
    for index, (text, parse) in enumerate(zip(texts, parses, strict=True)):
        here = tokens.sides == index
        local = tokens.words(index, text, parse)
        word[here] = local + words
        sentence[here] = parse.sentences[local] + sentences
        head[here] = parse.heads[local] + words
        words, sentences = words + len(parse), sentences + parse.count_sentences
    return {
        "word_index": word.tolist(),
        "sentence_index": sentence.tolist(),
        "head_index": head.tolist(),
        "special_tokens_mask": (tokens.sides < 0).astype(int).tolist(),
    }
