"""A Ray cluster. A trial comes back as the files of its folder, so that nodes share no disk."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import tempfile
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from sparseattn.errors import MissingExtraError, StudyError
from sparseattn.study.executors.base import Event, Job
from sparseattn.study.file.spec import ExecutorSpec
from sparseattn.study.folder.claims import Claims
from sparseattn.study.folder.store import Store
from sparseattn.study.runs.perform import RUN_TRIAL, Performer

__all__ = ["RayExecutor"]

_PERFORMERS: dict[str, Performer] = {}


def _perform(job: dict[str, Any], run: str, board: Any) -> dict[str, bytes]:
    """Runs on a node; Ray uses its process again, so that what the trials share is kept."""
    if run not in _PERFORMERS:
        _PERFORMERS[run] = Performer(run)

    def progress(phase: str, share: float) -> None:
        board.tell.remote(job["digest"], phase, share)

    with tempfile.TemporaryDirectory(prefix="sparseattn-") as work:
        return _PERFORMERS[run].perform(job["spec"], job["digest"], Path(work), progress)


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

    Ray starts a trial again elsewhere when its node is lost. The claims are the runner's: they are
    dropped, and Ray ends the trials, when the runner ends.

    Args:
        store: Where the trials go.
        claims: The claims of this process.
        spec: The cluster and what a trial takes of it.
        run: The function that runs a trial, as `module:function`.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: There is no cluster at the address.
    """

    def __init__(
        self, store: Store, claims: Claims, spec: ExecutorSpec, *, run: str = RUN_TRIAL
    ) -> None:
        self.store, self.claims, self.run, self.spec = store, claims, run, spec
        self._ray = _import()
        self._begun = self._join(spec.address)
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=True
        )
        board = self._ray.remote(num_cpus=0)(_Board)
        self._board = board.options(scheduling_strategy=here).remote()
        self._task = self._ray.remote(_perform).options(
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
        if not self.claims.take(job.digest):
            self._events.append(Event("busy", job.digest))
        elif self.store.has(job.digest):
            self.claims.release(job.digest)
            self._events.append(Event("found", job.digest))
        else:
            values = {"digest": job.digest, "spec": dict(job.spec)}
            self._running[self._task.remote(values, self.run, self._board)] = job.digest

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
            self.claims.release(digest)
        if self._begun:
            self._ray.shutdown()

    def _join(self, address: str) -> bool:
        """Joins the cluster; True if that began the connection."""
        if self._ray.is_initialized():
            return False
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options["include_dashboard"] = False
        # Ray asks for this to become its default.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            _knock(address)
            self._ray.init(address=address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            raise StudyError(
                f"no Ray cluster at {address!r} ({why}); start one with `ray start --head`, or set "
                "executor.address to local"
            ) from None
        return True

    def _finish(self, reference: Any, digest: str) -> Event:
        try:
            files = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # Raised by what ran on the node: a full disk, a package that is not there.
            self.claims.release(digest)
            cause = error.cause if isinstance(error.cause, Exception) else error
            told = _COLOURS.sub("", str(cause)).strip().splitlines() or [""]
            return Event("lost", digest, reason=f"its node: {type(cause).__name__}: {told[0]}")
        except self._ray.exceptions.RayError as error:
            self.claims.release(digest)
            return Event("lost", digest, reason=_cause(error))
        self.store.put(digest, files)
        self.claims.release(digest)
        return Event("stored", digest)


def _import() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            import ray.exceptions
            import ray.util.scheduling_strategies
    except ImportError:
        raise MissingExtraError(
            'the ray executor needs Ray: pip install "sparseattn[ray]"'
        ) from None
    module: ModuleType = ray
    return module


def _knock(address: str) -> None:
    """Makes sure that somebody listens at an address: Ray would wait for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _cause(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"its Ray worker was lost ({type(error).__name__}: {line[:200]})"
