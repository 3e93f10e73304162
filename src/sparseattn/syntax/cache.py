"""Parses, kept on disk: the same text is parsed once."""

from __future__ import annotations

import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sparseattn.files import cache_folder
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import Pipeline, Text

_CREATE = """
CREATE TABLE IF NOT EXISTS parses (key BLOB PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER)
"""
_READ = "SELECT data, checksum FROM parses WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO parses VALUES (?, ?, ?)"
#: What SQLite says of a file that is not, or is no longer, such a database: it is removed.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
#: How long to wait for another process, in seconds.
_PATIENCE = 60.0
#: Characters that are parsed between two writes to the disk: a few seconds.
_BATCH = 100_000

T = TypeVar("T")


@dataclass(frozen=True)
class ParseCache:
    """A pipeline and its parses, in one SQLite file that several processes may use at once.

    A write is a transaction: killed in the middle, it leaves what was there before. Entries have a
    checksum, and hold numbers only (no pickles). No connection outlives a call, so that a fork
    carries none along. Whatever goes wrong with the file costs a warning and the time to parse
    again.

    Attributes:
        pipeline: Parses what is not on disk.
        folder: Where the file lies; `sparseattn.files.cache_folder()` by default.
        progress: Called with the number of texts parsed and to parse, after each batch.
    """

    pipeline: Pipeline
    folder: str | Path | None = None
    progress: Callable[[int, int], None] | None = None

    @property
    def path(self) -> Path:
        """The file. Delete it to empty the cache."""
        return (cache_folder() if self.folder is None else Path(self.folder)) / "parses.sqlite"

    def parses(self, texts: Sequence[Text]) -> list[Parse]:
        """The parse of each text; texts that are equal are parsed once.

        Raises:
            AnnotationError: The pipeline does not load, or has no parser.
        """
        keys = [self.pipeline.key(text) for text in texts]
        found = self.get(set(keys)).items()
        parses = {key: Parse.from_bytes(data, self.pipeline.tags) for key, data in found}
        missing = {key: t for key, t in zip(keys, texts, strict=True) if key not in parses}
        done = 0
        for batch in _batches(missing):
            new = dict(zip(batch, self.pipeline.parse(list(batch.values())), strict=True))
            self.put({key: parse.to_bytes() for key, parse in new.items()})
            parses |= new
            done += len(batch)
            if self.progress:
                self.progress(done, len(missing))
        return [parses[key] for key in keys]

    def get(self, keys: set[bytes]) -> dict[bytes, bytes]:
        """Those of the entries that are there and whole."""
        if not self.path.exists():
            return {}

        def read(database: sqlite3.Connection) -> dict[bytes, bytes]:
            rows = ((key, database.execute(_READ, (key,)).fetchone()) for key in keys)
            return {key: row[0] for key, row in rows if row and self._is_whole(key, *row)}

        return self._run(read) or {}

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Writes entries, all of them or none."""
        rows = [(key, data, _checksum(key, data)) for key, data in entries.items()]
        self._run(lambda database: database.executemany(_WRITE, rows))

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database, database:
                database.execute(_CREATE)
                return action(database)
        except (sqlite3.DatabaseError, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                with suppress(OSError):
                    self.path.unlink()
            self._warn(f"cannot be used ({error}); texts are parsed again")
            return None

    def _is_whole(self, key: bytes, data: object, checksum: object) -> bool:
        if isinstance(data, bytes) and checksum == _checksum(key, data):
            return True
        self._warn("has a damaged entry; its text is parsed again")
        return False

    def _warn(self, what: str) -> None:
        warnings.warn(f"the parse cache {self.path} {what}", stacklevel=2)


def _checksum(key: bytes, data: bytes) -> int:
    return zlib.crc32(key + data)


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
