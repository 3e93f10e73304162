"""Parses kept on disk."""

from __future__ import annotations

import os
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

__all__ = ["ParseCache", "default_folder"]

_CREATE = """
CREATE TABLE IF NOT EXISTS parses (key BLOB PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER)
"""
_READ = "SELECT data, checksum FROM parses WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO parses VALUES (?, ?, ?)"
#: How long to wait for another process, in seconds.
_PATIENCE = 60.0
#: What SQLite says of a file that is not, or is no longer, such a database.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

T = TypeVar("T")


def default_folder() -> Path:
    """`$SPARSEATTN_CACHE`, or `sparseattn` in the user's cache folder."""
    if named := os.environ.get("SPARSEATTN_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparseattn"


@dataclass(frozen=True)
class ParseCache:
    """Byte strings by key, in one SQLite file that several processes may use at once.

    A write is a transaction: killed in the middle, it leaves what was there before. The journal is
    SQLite's default one, because a write-ahead log does not work on network file systems. No
    connection outlives a call, so that a fork or a pickle carries none along. Entries have a
    checksum. Whatever goes wrong with the file costs a warning and the time to parse again.

    Attributes:
        path: The file. Delete it to empty the cache.
    """

    path: Path

    @classmethod
    def within(cls, folder: str | Path | None) -> ParseCache:
        """The cache of a folder, `default_folder()` for None."""
        return cls((default_folder() if folder is None else Path(folder)) / "parses.sqlite")

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Those of the entries that are there."""
        if not self.path.exists():
            return {}

        def read(database: sqlite3.Connection) -> dict[bytes, bytes]:
            rows = ((key, database.execute(_READ, (key,)).fetchone()) for key in keys)
            return {key: row[0] for key, row in rows if row and self._sound(key, *row)}

        return self._run(read) or {}

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Writes entries, all of them or none."""
        rows = [(key, data, _checksum(key, data)) for key, data in entries.items()]
        self._run(lambda database: database.executemany(_WRITE, rows))

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._attempt(action)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                self._set_aside(error)
            else:
                self._warn(f"cannot be used ({error}); nothing is kept")
        except OSError as error:
            self._warn(f"cannot be used ({error.strerror}); nothing is kept")
        return None

    def _attempt(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database, database:
            database.execute(_CREATE)
            return action(database)

    def _sound(self, key: bytes, data: object, checksum: object) -> bool:
        if isinstance(data, bytes) and checksum == _checksum(key, data):
            return True
        self._warn("has a damaged entry; its text is parsed again")
        return False

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Renames a damaged file, unless another process has done so by now."""
        try:
            with FileLock(f"{self.path}.lock", timeout=_PATIENCE):
                if self._is_whole():
                    return
                os.replace(self.path, f"{self.path}.damaged")
        except OSError as trouble:
            self._warn(f"is damaged ({error}) and cannot be renamed ({trouble}); delete it")
            return
        self._warn(f"is damaged ({error}); it is now {self.path.name}.damaged and a new one begins")

    def _is_whole(self) -> bool:
        def check(database: sqlite3.Connection) -> bool:
            for statement in (_READ, _WRITE):
                database.execute(f"EXPLAIN {statement}", [b""] * statement.count("?"))
            return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))

        try:
            return self._attempt(check)
        except sqlite3.DatabaseError:
            return False

    def _warn(self, what: str) -> None:
        warnings.warn(f"the parse cache {self.path} {what}", stacklevel=2)


def _checksum(key: bytes, data: bytes) -> int:
    return zlib.crc32(key + data)
