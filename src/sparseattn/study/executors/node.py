"""What runs on a node of a Ray cluster: a trial, in the study's folder where the node sees that."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseattn.study.store import Store
from sparseattn.study.trial_runner import TrialRunner

__all__ = ["Shared", "perform", "workplace"]

#: Seconds that a trial waits for the end of an attempt before it, which is ending on a lost node.
_PATIENCE = 60.0

_PERFORMERS: dict[str, TrialRunner] = {}


@dataclass(frozen=True)
class Shared:
    """The runner's folder, and how a node knows that it sees the same one.

    A folder of that name may be another one on a node, or a copy. Its token, which the runner has
    made for this run, tells.

    Attributes:
        folder: The study's folder, absolute.
        file: The file in it that holds the token.
        token: The token.
    """

    folder: str
    file: str
    token: str

    @property
    def seen(self) -> bool:
        """Whether this node sees the folder and may write into it."""
        try:
            found = (Path(self.folder) / self.file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        return found == self.token and os.access(self.folder, os.W_OK)


def perform(job: dict[str, Any], run: str, board: Any, shared: Shared) -> dict[str, bytes]:
    """Runs a trial; Ray uses its process again, so that what the trials share is kept.

    Args:
        job: Its digest and spec.
        run: The function that runs a trial, as `module:function`.
        board: The actor that keeps the last word on each trial.
        shared: The runner's folder.

    Returns:
        The files of its folder.

    Raises:
        OSError: The disk is full.
    """
    if run not in _PERFORMERS:
        _PERFORMERS[run] = TrialRunner(run)

    def progress(phase: str, share: float) -> None:
        board.tell.remote(job["digest"], phase, share)

    with workplace(shared, job["digest"]) as work:
        return _PERFORMERS[run].perform(job["spec"], job["digest"], work, progress)


@contextmanager
def workplace(shared: Shared, digest: str, patience: float = _PATIENCE) -> Iterator[Path]:
    """Where a trial keeps what it would resume from: the study's folder, or else a temporary one.

    Args:
        shared: The runner's folder.
        digest: The trial.
        patience: Seconds to wait for an attempt before this one to end. A node that was cut off
            may go on with it; then this one starts from nothing.

    Yields:
        The folder.
    """
    lock = _locked(Store(shared.folder).work(digest), patience) if shared.seen else None
    if lock is None:
        with tempfile.TemporaryDirectory(prefix="sparseattn-") as work:
            yield Path(work)
        return
    try:
        yield Store(shared.folder).work(digest)
    finally:
        os.close(lock)


def _locked(work: Path, patience: float) -> int | None:
    """A lock on a trial's folder, which its process holds for life; None if it cannot be had."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = os.open(work / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() < end:
                time.sleep(0.2)
                continue
        except OSError:  # a file system without locks
            pass
        else:
            return file
        os.close(file)
        return None
