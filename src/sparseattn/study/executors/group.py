"""A trial in several processes, which `accelerate launch` starts and ends.

They are started anew for each trial. Their input is a pipe of which this process has the only other
end: they end when it ends, however it ends, and when the launcher does.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from sparseattn.study.trial import TrialFailed, TrialResult, TrialSpec
from sparseattn.study.trial_runner import WorkerDied

__all__ = ["FAILED", "SPEC", "STATUS", "Group", "leave"]

#: Where the processes and this one leave each other files, inside the trial's work folder.
_FOLDER, SPEC, FAILED = "group", "spec.json", "failed-{rank}.json"

#: The result: what it says, which is written last, and its table.
_RESULT, _PREDICTIONS = "result.json", "predictions.parquet"

#: What a process ends with that has said why.
STATUS = 86

#: How the launcher reports a process that did not end well.
_ENDED = re.compile(r"^\s*rank\s*: (\d+) \(.*\n\s*exitcode\s*: (-?\d+) ", re.MULTILINE)


class Group:
    """Runs trials in several processes; takes the place of the function that runs one.

    Args:
        run: That function, as `module:function`.
        processes: How many.
    """

    def __init__(self, run: str, processes: int) -> None:
        self.run, self.processes = run, processes

    def __call__(
        self, spec: TrialSpec, *, folder: Path, progress: Callable[[str, float], None], cache: Any
    ) -> TrialResult:
        """See `sparseattn.study.trial.run_trial`.

        Raises:
            TrialFailed: A process failed; the first one's reason.
            WorkerDied: A process died.
            OSError: The disk is full.
        """
        del cache  # the processes have their own
        place = folder / _FOLDER
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / SPEC).write_text(spec.model_dump_json(), encoding="utf-8")
        with tempfile.TemporaryFile() as errors:
            try:
                status = self._launch(place, progress, errors)
                return self._result(place, status, errors)
            finally:
                shutil.rmtree(place, ignore_errors=True)

    def _launch(
        self, place: Path, progress: Callable[[str, float], None], errors: IO[bytes]
    ) -> int:
        """Starts the processes and waits for them; gives the launcher's status."""
        launcher = subprocess.Popen(
            [*_launch(self.processes), self.run, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        # Processes that a killed launcher leaves behind end with their input.
        threading.Thread(target=_close_after, args=(launcher, launcher.stdin), daemon=True).start()
        try:
            for line in launcher.stdout:
                told = _message(line)
                if told is None:
                    sys.stderr.buffer.write(line)
                else:
                    progress(told["phase"], told["share"])
        finally:
            launcher.stdin.close()
            status = launcher.wait()
            launcher.stdout.close()
        return status

    def _result(self, place: Path, status: int, errors: IO[bytes]) -> TrialResult:
        if (place / _RESULT).is_file():
            return _taken(place)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
        ends = {int(rank): int(code) for rank, code in _ENDED.findall(text)}
        # The launcher ends the others by SIGTERM.
        died = {r: c for r, c in ends.items() if c not in (0, STATUS, -signal.SIGTERM)}
        for rank, code in died.items():
            raise WorkerDied(f"process {rank} of its {self.processes} {_ended(code)}")
        if status < 0:
            raise WorkerDied(f"the launcher of its {self.processes} processes {_ended(status)}")
        said = [json.loads(path.read_bytes()) for path in place.glob(FAILED.format(rank="*"))]
        if not said:
            last = (text.strip().splitlines() or ["it said nothing"])[-1]
            raise WorkerDied(
                f"its {self.processes} processes ended without a result: {last.strip()}"
            )
        first = min(said, key=lambda one: int(one["time"]))
        if first["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = TrialFailed(first["reason"])
        error.add_note(f"in process {first['rank']} of {self.processes}:\n{first['traceback']}")
        raise error


def leave(place: Path, result: TrialResult) -> None:
    """Writes a trial's result for the worker, which finds all of it or nothing.

    Args:
        place: The folder that it looks into.
        result: The result.
    """
    from pyarrow import parquet

    names = [field.name for field in dataclasses.fields(result) if field.name != "predictions"]
    values = {name: getattr(result, name) for name in names}
    parquet.write_table(result.predictions, place / _PREDICTIONS)
    draft = place / f"{_RESULT}.new"
    draft.write_text(json.dumps(values, default=float), encoding="utf-8")
    draft.rename(place / _RESULT)


def _taken(place: Path) -> TrialResult:
    from pyarrow import parquet

    values = json.loads((place / _RESULT).read_text(encoding="utf-8"))
    return TrialResult(**values, predictions=parquet.read_table(place / _PREDICTIONS))


def _launch(processes: int) -> list[str]:
    """The launcher's command, up to the module's arguments.

    `--multi_gpu` means several processes on this machine; where there is no GPU they use gloo.
    """
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS", "1")),
        *("--module", "sparseattn.study.executors.rank"),
    ]


def _close_after(process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
    process.wait()
    with suppress(OSError):
        pipe.close()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "phase" in told else None


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    hint = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}{hint})"
