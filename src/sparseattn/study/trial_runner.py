"""Running one trial and turning whatever comes of it into the files of its folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from sparseattn.errors import SparseAttnError, StudyError, first_line, unknown
from sparseattn.study import record
from sparseattn.study.store import LOGS, out_of_space
from sparseattn.study.trial import TrialSpec
from sparseattn.training.spec import Progress

__all__ = ["RUN_TRIAL", "TrialRunner", "give_up"]

#: The function that runs a trial, by its importable name.
RUN_TRIAL = "sparseattn.study.run_trial:run_trial"

#: The variables by which loggers learn where to write.
_LOGGERS = ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR")


class TrialRunner:
    """Runs trials one after another, and keeps between them what they can share.

    Args:
        run: The function that runs a trial, as `module:function`; a `TrialCache` in its module is
            made once and handed to every trial.

    Raises:
        StudyError: There is no such function.
    """

    def __init__(self, run: str = RUN_TRIAL) -> None:
        module_name, _, name = run.partition(":")
        module = import_module(module_name)
        if not hasattr(module, name):
            raise StudyError(unknown("trial function", run, [RUN_TRIAL]))
        self._run = getattr(module, name)
        cache = getattr(module, "TrialCache", None)
        self._cache = cache() if cache else None

    def run(
        self, trial: TrialSpec, work: Path, progress: Progress, logs: Path | None = None
    ) -> dict[str, bytes]:
        """Runs a trial.

        Args:
            trial: The trial.
            work: A folder that it may resume from.
            progress: Called now and then.
            logs: Where loggers write; by default into the work folder, and what they wrote is
                among the files.

        Returns:
            The files of its folder, whether it came to its end or failed.

        Raises:
            OSError: The disk is full, which says nothing about the trial.
        """
        work.mkdir(parents=True, exist_ok=True)
        log, phase = _Log(work), ""
        values = trial.model_dump(mode="json")

        def report(name: str, share: float) -> None:
            nonlocal phase
            if name != phase:
                phase = name
                log.add("phase", phase=name)
            progress(name, share)

        try:
            log.add("start", **_process(), **_newest_checkpoint(work / "checkpoints"))
            with _logging_to(logs or work / LOGS, trial.training.report_to):
                result = self._run(trial, folder=work, progress=report, cache=self._cache)
            log.add("end", seconds=result.seconds, metrics=result.metrics)
            files = record.finished(values, trial.digest, result, log.text())
        except Exception as error:
            if out_of_space(error, work):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            trace = "".join(traceback.format_exception(error))[-8000:]
            files = _failed(trial, _reason(error), log, traceback=trace)
        return files if logs else files | _logged(work / LOGS)


def give_up(trial: TrialSpec, reason: str, work: Path) -> dict[str, bytes]:
    """The files of a trial whose worker died too often.

    Args:
        trial: The trial.
        reason: Why.
        work: Its work folder, with the log of its attempts.
    """
    work.mkdir(parents=True, exist_ok=True)
    return _failed(trial, reason, _Log(work))


class _Log:
    """A trial's log: a JSON object a line, kept over attempts in its work folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def add(self, event: str, **values: Any) -> None:
        """Adds a line with the time (Unix, in seconds)."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **record.plain(values)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def text(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def _failed(trial: TrialSpec, reason: str, log: _Log, **details: str) -> dict[str, bytes]:
    log.add("failed", reason=reason, **details)
    values = trial.model_dump(mode="json")
    return record.failed(values, trial.digest, reason, _process(), log.text())


def _process() -> dict[str, Any]:
    """This process and its machine."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _newest_checkpoint(folder: Path) -> dict[str, str]:
    """What an attempt before this one left; a checkpoint of a search phase is older."""
    for pattern in ("checkpoint-*", "*/checkpoint-*"):
        found = (path.relative_to(folder).as_posix() for path in folder.glob(pattern))
        newest = max(found, key=lambda name: int(name.rpartition("-")[2]), default=None)
        if newest:
            return {"checkpoint": newest}
    return {}


def _reason(error: Exception) -> str:
    """Why a trial failed, in one line."""
    text, name = first_line(error), type(error).__name__
    short = text if len(text) <= 300 else f"{text[:300]}..."
    if isinstance(error, MemoryError):
        return f"out of memory: {short}"
    return short if isinstance(error, SparseAttnError) or short == name else f"{name}: {short}"


@contextmanager
def _logging_to(folder: Path, loggers: Sequence[str]) -> Iterator[None]:
    """Lets loggers write into a folder, unless the user has said where."""
    if not loggers:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    ours = [name for name in _LOGGERS if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(folder.absolute())))
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        with suppress(OSError):  # they wrote into it
            folder.rmdir()


def _logged(folder: Path) -> dict[str, bytes]:
    """What loggers wrote, under names that `Store.put` understands."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f"{LOGS}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
