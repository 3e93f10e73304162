"""A Ray cluster. A trial comes back as its files, so that nodes need not share a disk."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from sparseattn.study.executors.base import Event, Job
from sparseattn.study.executors.cluster import joined
from sparseattn.study.executors.node import Shared, perform
from sparseattn.study.locks import TrialLocks
from sparseattn.study.spec import ExecutorSpec
from sparseattn.study.store import Store, writing
from sparseattn.study.trial_runner import RUN_TRIAL

__all__ = ["RayExecutor"]

#: What colours a terminal.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _Board:
    """Lives beside the runner and keeps the last word on each trial."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[str, float]] = {}

    def tell(self, digest: str, phase: str, share: float) -> None:
        self.last[digest] = (phase, share)

    def read(self) -> dict[str, tuple[str, float]]:
        told, self.last = self.last, {}
        return told


class RayExecutor:
    """Runs trials on a Ray cluster.

    Ray starts a trial again elsewhere when its node is lost. The locks are the runner's: they are
    dropped, and Ray ends the trials, when the runner ends.

    Args:
        store: Where the trials go.
        locks: The locks of this process.
        spec: The cluster and what a trial takes of it.
        run: The function that runs a trial, as `module:function`.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: There is no cluster at the address.
    """

    def __init__(
        self, store: Store, locks: TrialLocks, spec: ExecutorSpec, *, run: str = RUN_TRIAL
    ) -> None:
        self.store, self.locks, self.run, self.spec = store, locks, run, spec
        self._open = contextlib.ExitStack()
        self._ray = self._open.enter_context(joined(spec))
        self._shared = self._open.enter_context(_shared(store))
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=True
        )
        board = self._ray.remote(num_cpus=0)(_Board)
        self._board = board.options(scheduling_strategy=here).remote()
        self._task = self._ray.remote(perform).options(
            num_cpus=spec.cpus,
            num_gpus=spec.gpus,
            max_retries=spec.retries,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, int(spec.cpus)))}},
        )
        self._running: dict[Any, str] = {}
        self._events: list[Event] = []

    @property
    def free(self) -> int:
        """See `Executor.free`; a cluster that grows is used."""
        have = self._ray.cluster_resources()
        slots = have.get("CPU", 0.0) / self.spec.cpus
        if self.spec.gpus:
            slots = min(slots, have.get("GPU", 0.0) / self.spec.gpus)
        # One that waits keeps Ray from idling, and makes a cluster with a scaler grow.
        return int(slots) + 1 - len(self._running)

    def submit(self, job: Job) -> None:
        """See `Executor.submit`."""
        if not self.locks.take(job.digest):
            self._events.append(Event("busy", job.digest))
        elif self.store.has(job.digest):
            self.locks.release(job.digest)
            self._events.append(Event("found", job.digest))
        else:
            values = {"digest": job.digest, "spec": dict(job.spec)}
            task = self._task.remote(values, self.run, self._board, self._shared)
            self._running[task] = job.digest

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor.poll`."""
        events, self._events = self._events, []
        if not self._running or events:
            time.sleep(0.0 if events else timeout)
            return events
        ready, _ = self._ray.wait(list(self._running), timeout=timeout)
        for reference in ready:
            events.append(self._finish(reference, self._running.pop(reference)))
        with contextlib.suppress(self._ray.exceptions.RayError):
            for digest, (phase, share) in self._ray.get(
                self._board.read.remote(), timeout=5
            ).items():
                if digest in self._running.values():
                    events.append(Event("progress", digest, phase, share))
        return events

    def close(self) -> None:
        """See `Executor.close`; a cluster that was running before goes on."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            for reference in self._running:
                self._ray.cancel(reference, force=True)
            self._ray.kill(self._board)
        for digest in self._running.values():
            self.locks.release(digest)
        self._open.close()

    def _finish(self, reference: Any, digest: str) -> Event:
        try:
            files = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # Raised by what ran on the node: a full disk, a package that is not there.
            self.locks.release(digest)
            cause = error.cause if isinstance(error.cause, Exception) else error
            told = _COLOURS.sub("", str(cause)).strip().splitlines() or [""]
            return Event("lost", digest, reason=f"its node: {type(cause).__name__}: {told[0]}")
        except self._ray.exceptions.RayError as error:
            self.locks.release(digest)
            return Event("lost", digest, reason=_cause(error))
        self.store.put(digest, files)
        self.locks.release(digest)
        return Event("stored", digest)


@contextlib.contextmanager
def _shared(store: Store) -> Iterator[Shared]:
    """Leaves a token in the study's folder, by which nodes know that they see it."""
    token = secrets.token_hex(16)
    file = store.folder / "tmp" / f"ray.{token[:8]}"
    with writing(store.folder):
        file.parent.mkdir(exist_ok=True)
        file.write_text(token, encoding="ascii")
    try:
        yield Shared(str(store.folder.absolute()), f"tmp/{file.name}", token)
    finally:
        file.unlink(missing_ok=True)


def _cause(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"its Ray worker was lost ({type(error).__name__}: {line[:200]})"
