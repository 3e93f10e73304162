"""Which process works on which trial: a lock file a trial, which the kernel frees with its process.

A file system without locks, or NFS without its lock service, cannot share a study.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from sparseattn.study.store import LOCKS, Store, writing


class TrialLocks:
    """The trials of a study folder that this process has locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, FileLock] = {}
        with writing(folder):
            (folder / LOCKS).mkdir(parents=True, exist_ok=True)

    def take(self, digest: str) -> bool:
        """Locks a trial; False where another process has it."""
        if digest in self._held:
            return True
        lock = FileLock(self.folder / LOCKS / digest)
        with writing(self.folder):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
        self._held[digest] = lock
        return True

    def release(self, digest: str) -> None:
        """Frees a trial. Its file stays: another process may be about to lock it."""
        if digest in self._held:
            self._held.pop(digest).release()

    @contextmanager
    def study(self) -> Iterator[None]:
        """Waits for the lock on the study as a whole, and holds it for a block."""
        with writing(self.folder):
            lock = FileLock(self.folder / LOCKS / "study")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees every trial."""
        for digest in list(self._held):
            self.release(digest)


def remove_stale_work(store: Store, locks: TrialLocks) -> None:
    """Removes the work folders of finished trials whose process was killed just after storing."""
    left = {path.name for path in (store.folder / "work").iterdir()}
    for digest in left & store.finished():
        if locks.take(digest):
            if store.has(digest):
                shutil.rmtree(store.work(digest), ignore_errors=True)
            locks.release(digest)
