"""Parses of texts, from the disk where they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparseattn.syntax.cache import ParseCache
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import Pipeline, Text

__all__ = ["Library"]

#: Characters that are parsed between two writes to the disk: a few seconds.
_BATCH = 100_000


@dataclass(frozen=True)
class Library:
    """A pipeline and what it has parsed.

    Attributes:
        pipeline: Parses what is not on disk.
        cache: The disk.
        progress: Called with the number of texts parsed and to parse, after each batch.
    """

    pipeline: Pipeline
    cache: ParseCache
    progress: Callable[[int, int], None] | None = None

    def parses(self, texts: Sequence[Text]) -> list[Parse]:
        """The parse of each text; texts that are equal are parsed once.

        Raises:
            AnnotationError: The pipeline does not load, or has no parser.
        """
        keys = [self.pipeline.key(text) for text in texts]
        wanted = dict(zip(keys, texts, strict=True))
        found = {key: Parse.from_bytes(data) for key, data in self.cache.get(wanted).items()}
        missing = {key: text for key, text in wanted.items() if key not in found}
        done = 0
        for batch in _batches(missing):
            parsed = self.pipeline.parse(list(batch.values()))
            new = dict(zip(batch, parsed, strict=True))
            self.cache.put({key: parse.to_bytes() for key, parse in new.items()})
            found |= new
            done += len(batch)
            if self.progress:
                self.progress(done, len(missing))
        return [found[key] for key in keys]


def _batches(texts: Mapping[bytes, Text]) -> Iterator[dict[bytes, Text]]:
    batch: dict[bytes, Text] = {}
    size = 0
    for key, text in texts.items():
        batch[key] = text
        size += sum(map(len, text))
        if size >= _BATCH:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch
