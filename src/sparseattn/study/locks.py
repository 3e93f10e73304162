"""Claims: which process works on which trial, kept by the kernel.

A claim is a POSIX lock on one byte of the study's file `claims`; the trial's digest says which. The
kernel drops it when its process ends, however it ends, so that no claim can be left behind. On NFS
this needs a lock service that runs (version 4 has it built in); a file system without locks is
refused with a message.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sparseattn.errors import StudyError
from sparseattn.study.store import Store, writing

__all__ = ["Claims", "tidy"]

#: Byte that stands for the study as a whole; above all bytes that stand for trials.
_STUDY = 1 << 61


class Claims:
    """The claims of this process on one study folder.

    Make one a process and folder: closing the file drops every claim that the process has on it.

    Args:
        folder: The study's folder.

    Raises:
        StudyError: The folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "claims"
        with writing(folder):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, digest: str) -> bool:
        """Claims a trial; False where another process has it.

        Raises:
            StudyError: The file system has no locks.
        """
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _byte(digest))

    def release(self, digest: str) -> None:
        """Gives a trial back."""
        self._lock(fcntl.LOCK_UN, _byte(digest))

    @contextmanager
    def study(self) -> Iterator[None]:
        """Holds the study as a whole for the length of a block; waits for it first."""
        self._lock(fcntl.LOCK_EX, _STUDY)
        try:
            yield
        finally:
            self._lock(fcntl.LOCK_UN, _STUDY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drops every claim."""
        os.close(self._file)

    def _lock(self, how: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, how, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise StudyError(
                f"cannot lock {self.path}: {error.strerror}; put the study on a file system "
                "with locks (a local disk, or NFS with its lock service)"
            ) from None
        return True


def tidy(store: Store, claims: Claims) -> None:
    """Removes what was left by a process that was killed when it had just stored its trial.

    Args:
        store: The study's folder.
        claims: The claims of this process.
    """
    left = {path.name for path in (store.folder / "work").iterdir()}
    for digest in left & store.finished():
        if claims.take(digest):
            if store.has(digest):
                shutil.rmtree(store.work(digest), ignore_errors=True)
            claims.release(digest)


def _byte(digest: str) -> int:
    return int(digest[:15], 16)
