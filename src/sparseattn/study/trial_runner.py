"""Running one trial and turning whatever comes of it into the files of its folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sparseattn.errors import SparseAttnError, StudyError, unknown
from sparseattn.study import record
from sparseattn.study.store import LOGS, out_of_space
from sparseattn.training.logs import logged, logging_to

__all__ = ["RUN_TRIAL", "Log", "Progress", "TrialRunner", "WorkerDied", "reason_of", "where"]

#: The function that runs a trial, by its importable name.
RUN_TRIAL = "sparseattn.study.trial:run_trial"

#: Takes what a trial is doing, and the share of it that is done.
Progress = Callable[[str, float], None]


class WorkerDied(Exception):  # noqa: N818
    """What ran a trial died, which says nothing about the trial."""


class Log:
    """A trial's log: a JSON object a line, kept over attempts in its work folder.

    Args:
        folder: The work folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def add(self, event: str, **values: Any) -> None:
        """Adds a line with the time (Unix, in seconds)."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **record.plain(values)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def text(self) -> bytes:
        """The whole log."""
        return self.path.read_bytes() if self.path.exists() else b""


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
        make = getattr(module, "TrialCache", None)
        self._cache = make() if make else None

    def use(self, run: Callable[..., Any]) -> None:
        """Lets something else run the trials.

        Args:
            run: Takes what the function takes, and gives what it gives.
        """
        self._run = run

    def perform(
        self,
        values: Mapping[str, Any],
        digest: str,
        work: Path,
        progress: Progress,
        logs: Path | None = None,
    ) -> dict[str, bytes]:
        """Runs a trial.

        Args:
            values: Its spec as plain values.
            digest: Its digest.
            work: A folder that it may resume from.
            progress: Called now and then.
            logs: Where loggers write; by default into the work folder, and what they wrote is
                given back.

        Returns:
            The files of its folder, whether it came to its end or failed.

        Raises:
            OSError: The disk is full, which says nothing about the trial.
        """
        from sparseattn.study.trial import TrialSpec

        work.mkdir(parents=True, exist_ok=True)
        log = Log(work)
        phase = ""

        def report(name: str, share: float) -> None:
            nonlocal phase
            if name != phase:
                phase = name
                log.add("phase", phase=name)
            progress(name, share)

        try:
            log.add("start", **where(), **_kept(work))
            spec = TrialSpec.model_validate_json(json.dumps(values))
            with logging_to(logs or work / LOGS, spec.training.report_to):
                result = self._run(spec, folder=work, progress=report, cache=self._cache)
            log.add("end", seconds=result.seconds, metrics=result.metrics)
            files = record.finished(values, digest, result, log.text())
        except WorkerDied:
            raise
        except Exception as error:
            if out_of_space(error, work):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            reason = reason_of(error)
            log.add("failed", reason=reason, traceback=_traceback(error))
            files = record.failed(values, digest, reason, where(), log.text())
        return files if logs else files | logged(work / LOGS)


def _kept(work: Path) -> dict[str, str]:
    """The newest checkpoint that an earlier attempt left; one of a search phase is older."""
    place = work / "checkpoints"
    for pattern in ("checkpoint-*", "*/checkpoint-*"):
        found = (path.relative_to(place).as_posix() for path in place.glob(pattern))
        newest = max(found, key=lambda name: int(name.rpartition("-")[2]), default=None)
        if newest:
            return {"checkpoint": newest}
    return {}


def where() -> dict[str, Any]:
    """This process and its machine."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def reason_of(error: Exception) -> str:
    """Why a trial failed, in one line."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    short = text if len(text) <= 300 else f"{text[:300]}..."
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return f"out of memory: {short or type(error).__name__}"
    if "can't allocate memory" in text:  # torch's allocator on the CPU, a plain RuntimeError
        return f"out of memory: {short}"
    if isinstance(error, SparseAttnError) or type(error).__name__ == "TrialFailed":
        return short
    return f"{type(error).__name__}: {short}" if short else type(error).__name__


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-8000:]
