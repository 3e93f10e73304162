"""The folder of a study.

```
study.json                 the resolved spec
trials/<digest>/           one finished trial, done or failed; never changed once it is there
work/<digest>/             what an unfinished trial resumes from: its checkpoints and its log
logs/<digest>/             what loggers such as TensorBoard wrote; no part of the trial
tmp/, damaged/, claims     trials being written; trials found damaged; see `claims.py`
results.csv, .parquet      a row a trial; derived, see `results.py`
```

A trial is written under another name, flushed to the disk and renamed, so that a folder under
`trials` is whole, whatever was killed when.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError, reason
from sparseattn.study import record

__all__ = ["FOLDERS", "LOGS", "STUDY", "Store", "out_of_space", "writing"]

STUDY = "study.json"

#: Its sub-folders.
FOLDERS = ("trials", "work", "tmp")

#: The folder of what loggers wrote, and what such a file is called among a trial's files.
LOGS = "logs"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")


class Store:
    """The trials of one study folder.

    Args:
        folder: The folder; it need not exist before something is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.trials = self.folder / "trials"

    def prepare(self) -> None:
        """Makes the folder."""
        with writing(self.folder):
            for name in FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def finished(self) -> set[str]:
        """Digests of the trials that are there, done or failed; opens none of them."""
        try:
            with os.scandir(self.trials) as entries:
                return {entry.name for entry in entries}
        except FileNotFoundError:
            return set()

    def has(self, digest: str) -> bool:
        """Whether a trial is there."""
        return (self.trials / digest).is_dir()

    def read(self, digest: str) -> dict[str, Any]:
        """What `result.json` of a trial says, once all of its files are checked.

        Raises:
            StudyError: One is damaged; the message names it.
        """
        return record.check(self.trials / digest)

    def files(self, digest: str) -> dict[str, bytes]:
        """The files of a trial by name, once they are checked; others that lie there are left out.

        Raises:
            StudyError: See `read`.
        """
        place, names = self.trials / digest, record.names(self.read(digest))
        return {name: (place / name).read_bytes() for name in names}

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Stores a trial; the caller has claimed it. Does nothing if it is there already.

        Args:
            digest: The trial.
            files: Its files by name; those under `logs/` go where its loggers would have written.

        Raises:
            StudyError: The folder cannot be written to: the disk is full, or read-only.
        """
        with writing(self.folder):
            place = self.folder / "tmp"
            place.mkdir(exist_ok=True)
            for left in place.glob(f"{digest}.*"):
                shutil.rmtree(left)
            temporary = place / f"{digest}.{os.getpid()}"
            temporary.mkdir()
            try:
                for name, data in files.items():
                    if not name.startswith(f"{LOGS}/"):
                        _write(temporary / name, data)
                    elif not self.has(digest):
                        path = self.logs(digest) / name.removeprefix(f"{LOGS}/")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        _write(path, data)
                sync_folder(temporary)
                if not self.has(digest):
                    temporary.rename(self.trials / digest)
                    sync_folder(self.trials)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(self.work(digest), ignore_errors=True)

    def work(self, digest: str) -> Path:
        """Where a trial keeps what it would resume from."""
        return self.folder / "work" / digest

    def logs(self, digest: str) -> Path:
        """Where a trial's loggers write. Stays when the trial is done."""
        return self.folder / LOGS / digest

    def set_aside(self, digest: str) -> Path:
        """Moves a damaged trial out of the way, so that it is run again.

        Returns:
            Where it is now.
        """
        with writing(self.folder):
            place = self.folder / "damaged"
            place.mkdir(exist_ok=True)
            count = sum(1 for _ in place.glob(f"{digest}.*"))
            (self.trials / digest).rename(place / f"{digest}.{count}")
        return place / f"{digest}.{count}"

    def clear(self, digest: str) -> None:
        """Makes room for a trial that is done: one that failed goes, a damaged one is set aside."""
        if self.has(digest):
            try:
                self.read(digest)
            except StudyError:
                self.set_aside(digest)
            else:
                self.forget(digest)

    def forget(self, digest: str) -> None:
        """Removes a trial, so that it is run again."""
        with writing(self.folder):
            temporary = self.folder / "tmp" / f"{digest}.forgotten.{os.getpid()}"
            (self.trials / digest).rename(temporary)
            shutil.rmtree(temporary)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file of the study in one step: readers see the old one or the new one.

        Raises:
            StudyError: See `put`.
        """
        with writing(self.folder):
            temporary = self.folder / f".{name}.{os.getpid()}"
            try:
                _write(temporary, data)
                temporary.replace(self.folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self.folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a failure to write into one line that says what to do.

    Raises:
        StudyError: In place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        what = reason(error)
        then = (
            f"free some space, then `sparseattn study resume {folder}` goes on"
            if error.errno in _FULL
            else "choose a folder that can be written to"
        )
        raise StudyError(f"cannot write to {folder}: {what}; {then}") from error


def out_of_space(error: BaseException, folder: Path) -> bool:
    """Whether a trial failed because the disk that holds `folder` is full.

    Libraries word it in their own ways (torch: `PytorchStreamWriter failed writing file`), so that
    the disk is asked too.
    """
    if getattr(error, "errno", None) in _FULL or any(text in str(error) for text in _NO_SPACE):
        return True
    return isinstance(error, OSError | RuntimeError) and shutil.disk_usage(folder).free < 1 << 16


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flushes the names in a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
