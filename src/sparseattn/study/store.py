"""The folder of a study.

```
study.json                 the resolved spec
trials/<digest>/           a finished trial, done or failed
work/<digest>/             what an unfinished trial resumes from: its checkpoints and its log
logs/<digest>/             what loggers such as TensorBoard wrote; no part of the trial
locks/                     see `sparseattn.study.locks`
results.csv, .parquet      a row a trial; derived, see `sparseattn.study.results`
```

A trial is written as `trials/.<digest>` and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError, reason
from sparseattn.files import FULL, sync_folder, write_whole
from sparseattn.study import record

STUDY = "study.json"
LOCKS = "locks"

#: The folder of what loggers wrote, and what such a file is called among a trial's files.
LOGS = "logs"

#: Sub-folders that a study begins with.
FOLDERS = ("trials", "work", LOCKS)

#: The status of a trial whose files do not match their checksums.
DAMAGED = "damaged"


class Store:
    """The trials of one study folder, which need not exist. Whoever writes one has locked it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.trials = self.folder / "trials"

    def prepare(self) -> None:
        """Makes the folder."""
        with writing(self.folder):
            for name in FOLDERS:
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def finished(self) -> set[str]:
        """Digests of the trials that are there, done, failed or damaged; opens none of them."""
        try:
            return {name for name in os.listdir(self.trials) if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    def has(self, digest: str) -> bool:
        """Whether a trial is there."""
        return (self.trials / digest).is_dir()

    def status(self, digest: str) -> str:
        """`done`, `failed` or `damaged`; empty where the trial is not there."""
        if not self.has(digest):
            return ""
        try:
            return str(self.read(digest)["status"])
        except StudyError:
            return DAMAGED

    def read(self, digest: str) -> dict[str, Any]:
        """What `result.json` of a trial says, once all of its files are checked."""
        result: dict[str, Any] = json.loads(self.files(digest)[record.RESULT])
        return result

    def files(self, digest: str) -> dict[str, bytes]:
        """The files of a trial by name; a `StudyError` that names one that is damaged."""
        folder = self.trials / digest
        return record.check(digest, lambda name: (folder / name).read_bytes(), folder)

    def put(self, digest: str, files: Mapping[str, bytes]) -> None:
        """Stores a trial, unless it is there; files under `logs/` go where loggers write."""
        draft = self.trials / f".{digest}"
        with writing(self.folder):
            if not self.has(digest):
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                try:
                    for name, data in files.items():
                        path = draft / name
                        if name.startswith(f"{LOGS}/"):
                            path = self.logs(digest) / name.removeprefix(f"{LOGS}/")
                            path.parent.mkdir(parents=True, exist_ok=True)
                        write_whole(path, data)
                    draft.rename(self.trials / digest)
                    sync_folder(self.trials)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(self.work(digest), ignore_errors=True)

    def remove(self, digest: str) -> None:
        """Removes a trial, so that it is run again."""
        with writing(self.folder):
            draft = self.trials / f".{digest}"
            shutil.rmtree(draft, ignore_errors=True)
            (self.trials / digest).rename(draft)
            shutil.rmtree(draft)

    def work(self, digest: str) -> Path:
        """Where a trial keeps what it would resume from."""
        return self.folder / "work" / digest

    def logs(self, digest: str) -> Path:
        """Where a trial's loggers write. Stays when the trial is done."""
        return self.folder / LOGS / digest

    def write(self, name: str, data: bytes) -> None:
        """Writes a file of the study, whole or not at all, unless it says this already."""
        path = self.folder / name
        with writing(self.folder):
            if not (path.is_file() and path.read_bytes() == data):
                write_whole(path, data)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a failure to write into a `StudyError` that says what to do."""
    try:
        yield
    except OSError as error:
        then = (
            "free some space, and the same command goes on"
            if error.errno in FULL
            else "choose a folder that can be written to"
        )
        raise StudyError(f"cannot write to {folder}: {reason(error)}; {then}") from error
