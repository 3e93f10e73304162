"""Running one trial and turning whatever comes of it into the files of its folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from sparseattn.errors import SparseAttnError, StudyError, first_line, unknown
from sparseattn.files import out_of_space
from sparseattn.study import record
from sparseattn.study.store import LOGS
from sparseattn.study.trial import TrialSpec
from sparseattn.training.spec import Progress

#: The function that runs a trial, by its importable name.
RUN_TRIAL = "sparseattn.study.run_trial:run_trial"

#: The variables by which loggers learn where to write.
_LOGGERS = ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR")


def run_to_files(
    run: str, trial: TrialSpec, work: Path, progress: Progress, logs: Path | None = None
) -> dict[str, bytes]:
    """Runs a trial, in this process.

    Args:
        run: The function that runs it, as `module:function`; a `TrialCache` in its module is made
            once a process and handed to every trial.
        trial: The trial.
        work: A folder that it may resume from.
        progress: Called now and then.
        logs: Where loggers write; by default into the work folder, and what they wrote is among
            the files.

    Returns:
        The files of the trial's folder, whether it came to its end or failed.

    Raises:
        StudyError: There is no such function.
        OSError: The disk is full, which says nothing about the trial.
    """
    function, kept = _loaded(run)
    work.mkdir(parents=True, exist_ok=True)
    phase = ""

    def report(name: str, share: float) -> None:
        nonlocal phase
        if name != phase:
            phase = name
            _log(work, "phase", phase=name)
        progress(name, share)

    try:
        _log(work, "start", **_process(), **_newest_checkpoint(work / "checkpoints"))
        with _logging_to(logs or work / LOGS, trial.training.report_to):
            result = function(trial, folder=work, progress=report, cache=kept)
        log = _log(work, "end", seconds=result.seconds, metrics=result.metrics)
        files = record.finished(trial.model_dump(mode="json"), trial.digest, result, log)
    except Exception as error:
        if out_of_space(error, work):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        trace = "".join(traceback.format_exception(error))[-8000:]
        files = failed_files(trial, _reason(error), work, traceback=trace)
    if logs is None:  # `Store.put` knows these names
        for path in filter(Path.is_file, sorted((work / LOGS).rglob("*"))):
            files[path.relative_to(work).as_posix()] = path.read_bytes()
    return files


@cache
def _loaded(run: str) -> tuple[Callable[..., Any], Any]:
    module_name, _, name = run.partition(":")
    module = import_module(module_name)
    if not hasattr(module, name):
        raise StudyError(unknown("trial function", run, [RUN_TRIAL]))
    make_cache = getattr(module, "TrialCache", None)
    return getattr(module, name), make_cache and make_cache()


def failed_files(trial: TrialSpec, reason: str, work: Path, **details: str) -> dict[str, bytes]:
    """The files of a trial that failed, or whose worker died too often; `details` are logged."""
    work.mkdir(parents=True, exist_ok=True)
    log = _log(work, "failed", reason=reason, **details)
    return record.failed(trial.model_dump(mode="json"), trial.digest, reason, _process(), log)


def _log(work: Path, event: str, **values: Any) -> bytes:
    """Adds a line to a trial's log, which is kept over its attempts, and gives the whole of it."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **record.plain(values)})
    with (work / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return (work / "log.jsonl").read_bytes()


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
