"""Worker processes on this machine."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from sparseattn.study.executors.base import Event, Job
from sparseattn.study.executors.devices import cores, devices
from sparseattn.study.store import Store
from sparseattn.study.trial_runner import RUN_TRIAL

__all__ = ["LocalExecutor", "cores"]

#: Bytes of memory that a worker may need.
_MEMORY = 4 << 30

#: Variables that tell numerical libraries how many threads to start.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(eq=False)
class _Worker:
    """A worker process and what it is doing."""

    index: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    job: Job | None = None
    buffer: bytearray = field(default_factory=bytearray)

    def last_words(self) -> str:
        """The end of what it printed."""
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 4000))
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


class LocalExecutor:
    """Long-lived worker processes, which share out the cores.

    A worker imports and tokenises once and keeps that from trial to trial; see `TrialCache`. One
    that dies is replaced.

    Args:
        store: Where the trials go.
        workers: How many processes; by default as many as the GPUs, or else the cores, suffice for,
            as far as memory goes.
        threads: Threads of each process that trains; by default the cores are shared out.
        processes: Processes that train a trial: the worker itself, or several that it starts.
        run: The function that runs a trial, as `module:function`.
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int | None = None,
        threads: int | None = None,
        processes: int = 1,
        run: str = RUN_TRIAL,
    ) -> None:
        self.store, self.run, self.processes = store, run, processes
        self.workers = workers or _default_workers(processes)
        self.threads = threads or max(1, cores() // (self.workers * processes))
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Worker] = []
        self._busy: dict[str, _Worker] = {}

    @property
    def free(self) -> int:
        """See `Executor.free`."""
        return self.workers - len(self._busy)

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        worker = self._idle.pop() if self._idle else self._start()
        worker.job = job
        self._busy[job.digest] = worker
        line = json.dumps({"digest": job.digest, "spec": job.spec}) + "\n"
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it died while idle: poll() will say that the job is lost
            worker.process.stdin.write(line.encode())
            worker.process.stdin.flush()

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor.poll`."""
        events = []
        for key, _ in self._selector.select(timeout):
            worker: _Worker = key.data
            data = os.read(key.fd, 1 << 16)
            if not data:
                events += self._ended(worker)
            worker.buffer += data
            *lines, rest = worker.buffer.split(b"\n")
            worker.buffer = bytearray(rest)
            events += [self._event(worker, json.loads(line)) for line in lines]
        return events

    def close(self) -> None:
        """See `Executor.close`."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            self._remove(worker)
        self._selector.close()

    def _start(self) -> _Worker:
        taken = {worker.index for worker in (*self._idle, *self._busy.values())}
        index = min(set(range(self.workers)) - taken)
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "sparseattn.study.executors.worker"]
        process = subprocess.Popen(
            [*command, str(self.store.folder), self.run, str(self.processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=self._environment(index),
            # Ctrl-C is the runner's business: it would hit every process of the terminal.
            start_new_session=True,
        )
        worker = _Worker(index, process, errors)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _environment(self, index: int) -> dict[str, str]:
        own = dict.fromkeys(_THREADS, str(self.threads))
        own["TOKENIZERS_PARALLELISM"] = "false"
        found, count = devices(os.environ), self.processes
        if len(found) > 1:  # a Trainer that sees several would split each batch over them
            first = index * count % len(found)
            own["CUDA_VISIBLE_DEVICES"] = ",".join(found[first : first + count])
        return {**os.environ, **own}

    def _event(self, worker: _Worker, message: dict[str, Any]) -> Event:
        event = Event(**message)
        if event.kind in ("stored", "found", "busy", "lost"):
            del self._busy[event.digest]
            worker.job = None
            self._idle.append(worker)
        return event

    def _ended(self, worker: _Worker) -> list[Event]:
        job, words = worker.job, worker.last_words()
        code = self._remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if job is None:
            return []
        del self._busy[job.digest]
        return [Event("lost", job.digest, reason=_cause(code, words))]

    def _remove(self, worker: _Worker) -> int:
        assert worker.process.stdin is not None
        assert worker.process.stdout is not None
        self._selector.unregister(worker.process.stdout)
        worker.process.stdout.close()
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        worker.errors.close()
        try:
            return worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its output and hangs
            worker.process.kill()
            return worker.process.wait()


def _default_workers(processes: int) -> int:
    if found := devices(os.environ):
        return max(1, len(found) // processes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores(), memory // _MEMORY) // processes)


def _cause(code: int, words: str) -> str:
    if code >= 0:
        return f"its worker ended with status {code}" + (f": {words}" if words else "")
    name = signal.Signals(-code).name
    hint = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"its worker was killed by signal {-code} ({name}{hint})"
