"""Whose results a folder holds: those of one job, begun or finished."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from sparseattn.errors import StudyError

__all__ = ["Claim"]

_FILE = "job.json"


class Claim(TrainerCallback):
    """Keeps a folder for one job: noted in it when training begins, and again when it is over.

    Before training begins nothing is written, so that a job that is refused leaves no folder.

    Args:
        out: The folder of the results; checkpoints lie in its `work` meanwhile.
        job: What decides the results, as plain values.

    Attributes:
        work: Where checkpoints go.
        finished: Whether the folder holds this job's results.

    Raises:
        StudyError: The folder cannot be written, or holds another job or the beginnings of one.
    """

    def __init__(self, out: Path, job: dict[str, Any]) -> None:
        self.out, self.work = out, out / "work"
        self.job: dict[str, Any] = json.loads(json.dumps(job))
        self._check_place()
        self._check(self.work, "the beginnings of learning")
        self._check(out, "what was learned")
        self.finished = (out / _FILE).is_file()

    def _check_place(self) -> None:
        place = self.out
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK):
            told = "no folder" if not place.is_dir() else "not to be written"
            raise StudyError(f"cannot write to {self.out}: {place} is {told}")

    def _check(self, folder: Path, what: str) -> None:
        path = folder / _FILE
        if not path.is_file():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise StudyError(
                f"{path} cannot be read: delete {folder}, or give another --out"
            ) from None
        if found != self.job:
            raise StudyError(
                f"{folder} holds {what} with other settings: give another --out, or delete it"
            )

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Training begins: the folder is this job's from now on."""
        self._note(self.work)

    def finish(self) -> None:
        """The results are written: notes whose they are, and removes the checkpoints."""
        self._note(self.out)
        shutil.rmtree(self.work, ignore_errors=True)
        self.finished = True

    def _note(self, folder: Path) -> None:
        temporary = folder / f"{_FILE}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.job), encoding="utf-8")
            os.replace(temporary, folder / _FILE)
        except OSError as error:
            raise StudyError(f"cannot write to {self.out}: {error.strerror}") from None
