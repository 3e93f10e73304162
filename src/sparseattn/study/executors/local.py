"""Worker processes on this machine: a process pool of one for each trial that runs at a time.

With a pool each, a worker that is killed takes no other trial with it.
"""

from __future__ import annotations

import glob
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

from tqdm import tqdm

from sparseattn.errors import StudyError, first_line
from sparseattn.study.locks import TrialLocks
from sparseattn.study.runner import Event
from sparseattn.study.store import Store, writing
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_runner import RUN_TRIAL, run_to_files

#: Bytes of memory that a worker may need: one with a model of 12 layers and width 768 took 4.6 GB,
#: on batches of 32 sentences of SST-2 in bf16.
_MEMORY = 6 << 30

#: Seconds between two progress messages of a phase.
_PACE = 0.2

#: Variables that tell numerical libraries how many threads to start.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(index) for index in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def default_workers() -> int:
    """A worker for each GPU, or else for each core, as far as memory goes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(_gpus()) or max(1, min(cores(), memory // _MEMORY))


def default_threads(workers: int) -> int:
    """The threads of each of so many workers, unless a study says how many."""
    return max(1, cores() // workers)


Ended = Literal["stored", "busy"]


@dataclass(eq=False)
class _Worker:
    """A worker process, in a pool of its own, and its trial."""

    index: int
    pool: ProcessPoolExecutor
    process: Any
    messages: Connection
    output: IO[bytes]
    trial: str
    future: Future[Ended]

    def death(self) -> str:
        """How the process ended, in words."""
        self.process.join(10)
        # The pool's own thread waits for the process as well: where that one was first, its
        # status is known a moment later.
        deadline = time.monotonic() + 1
        while (code := self.process.exitcode) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if code is not None and code < 0:
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            return f"its worker was killed by signal {-code} ({signal.Signals(-code).name}{hint})"
        self.output.seek(max(0, self.output.seek(0, os.SEEK_END) - 4000))
        lines = self.output.read().decode(errors="replace").strip().splitlines()
        return f"its worker ended with status {code}" + (f": {lines[-1].strip()}" if lines else "")

    def close(self) -> None:
        """Ends the process: at once where it is at work, else by itself, which leaves nothing."""
        if self.future.done():
            self.pool.shutdown(wait=False)
            self.process.join(10)
        self.process.kill()
        self.pool.shutdown(cancel_futures=True)
        self.messages.close()
        self.output.close()


class LocalExecutor:
    """Long-lived worker processes, which share out the cores; one that dies is replaced."""

    def __init__(
        self, store: Store, workers: int | None, threads: int | None, run: str = RUN_TRIAL
    ) -> None:
        self.store, self.run = store, run
        self.workers = workers or default_workers()
        self.threads = threads or default_threads(self.workers)
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    @property
    def free(self) -> int:
        return self.workers - len(self._busy)

    def submit(self, trial: TrialSpec) -> None:
        task = partial(_work, str(self.store.folder), self.run, trial.model_dump_json())
        worker = self._idle.pop() if self._idle else None
        if worker is not None:
            try:
                worker.trial, worker.future = trial.digest, worker.pool.submit(task)
            except BrokenProcessPool:  # it died while it was idle
                worker.close()
                worker = None
        self._busy.append(worker or self._start(trial.digest, task))

    def poll(self, timeout: float) -> list[Event]:
        if not self._busy:
            time.sleep(timeout)
        wait([worker.future for worker in self._busy], timeout, FIRST_COMPLETED)
        events = []
        for worker in list(self._busy):
            done = worker.future.done()  # looked at first: no message of this trial comes later
            while worker.messages.poll():
                events.append(Event("progress", worker.trial, *worker.messages.recv()))
            if done:
                self._busy.remove(worker)
                events.append(self._ended(worker))
        return events

    def close(self) -> None:
        for worker in self._busy:
            worker.process.kill()
        for worker in (*self._busy, *self._idle):
            worker.close()

    def _start(self, digest: str, task: partial[Ended]) -> _Worker:
        taken = {worker.index for worker in (*self._idle, *self._busy)}
        index = min(set(range(self.workers)) - taken)
        variables = dict.fromkeys(_THREADS, str(self.threads)) | {"TOKENIZERS_PARALLELISM": "false"}
        gpus = _gpus()
        if len(gpus) > 1:  # a Trainer that sees several would split each batch over them
            variables["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        output = tempfile.NamedTemporaryFile(prefix="sparseattn-")  # noqa: SIM115
        messages, sender = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, context, _begin, (output.name, sender))
        before = set(multiprocessing.active_children())
        with _spawning(variables):
            future = pool.submit(task)
        (process,) = set(multiprocessing.active_children()) - before
        return _Worker(index, pool, process, messages, output, digest, future)

    def _ended(self, worker: _Worker) -> Event:
        try:
            event = Event(worker.future.result(), worker.trial)
        except BrokenProcessPool:
            event = Event("lost", worker.trial, reason=worker.death())
            worker.close()
            return event
        except StudyError:
            worker.close()
            raise
        except Exception as error:  # a bug, or a package that is not there
            reason = f"its worker raised {type(error).__name__}: {first_line(error)}"
            event = Event("lost", worker.trial, reason=reason)
        self._idle.append(worker)
        return event


@contextmanager
def _spawning(variables: dict[str, str]) -> Iterator[None]:
    """What a process that is started here inherits: variables, and deafness to Ctrl-C.

    Ctrl-C reaches every process of a terminal, and is the runner's business. A worker does not
    import the user's script either, which need not be guarded by `__name__ == "__main__"`.
    """
    before, script = dict(os.environ), sys.modules["__main__"]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(variables)
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        os.environ.clear()
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


_messages: Connection


def _begin(output: str, messages: Connection) -> None:
    """Prepares a worker: where its output goes, and that it ends when the runner does.

    The lock of progress bars is one of threads, since a worker that is killed would leave one of
    processes behind, of which Python warns when the run is stopped.
    """
    global _messages
    _messages = messages
    tqdm.set_lock(threading.RLock())
    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


_locks = cache(TrialLocks)


def _work(folder: str, run: str, spec: str) -> Ended:
    """Runs a trial in a worker, which holds the lock itself: that lives as long as the work."""
    trial = TrialSpec.model_validate_json(spec)
    digest, store, locks = trial.digest, Store(folder), _locks(Path(folder))
    last = ("", 0.0)

    def progress(phase: str, share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if phase != last[0] or now - last[1] > _PACE:
            last = (phase, now)
            _messages.send((phase, round(float(share), 4)))

    if not locks.take(digest):
        return "busy"
    try:
        if not store.has(digest):
            with writing(store.folder):
                files = run_to_files(run, trial, store.work(digest), progress, store.logs(digest))
            store.put(digest, files)
        return "stored"
    finally:
        locks.release(digest)
