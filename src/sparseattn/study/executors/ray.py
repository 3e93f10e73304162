"""A Ray cluster: a trial is one task, and comes back as its files, so that no disk is shared."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock
from rich.text import Text

from sparseattn.errors import MissingExtraError, StudyError, first_line
from sparseattn.study.locks import TrialLocks
from sparseattn.study.runner import Event
from sparseattn.study.spec import ExecutorSpec
from sparseattn.study.store import LOCKS, Store, writing
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_runner import RUN_TRIAL, run_to_files

#: The address that stands for a cluster of this machine alone, begun for the study.
LOCAL = "local"

#: Seconds that a trial waits for the end of an attempt before it, which is ending on a lost node.
_PATIENCE = 60.0


class RayExecutor:
    """Runs trials on a Ray cluster.

    Ray starts a trial again elsewhere when its node is lost. The locks are the runner's: they are
    dropped, and Ray ends the trials, when the runner ends.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: There is no cluster at the address.
    """

    def __init__(
        self, store: Store, locks: TrialLocks, spec: ExecutorSpec, run: str = RUN_TRIAL
    ) -> None:
        self.store, self.locks, self.run, self.spec = store, locks, run, spec
        self._open = contextlib.ExitStack()
        self._ray = self._open.enter_context(joined(spec))
        self._mark = self._open.enter_context(_marked(store))
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=True
        )
        board = self._ray.remote(num_cpus=0)(_Board)
        self._board = board.options(scheduling_strategy=here).remote()
        self._task = self._ray.remote(run_on_node).options(
            num_cpus=spec.cpus,
            num_gpus=spec.gpus,
            max_retries=spec.retries,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(max(1, int(spec.cpus)))}},
        )
        self._running: dict[Any, str] = {}
        self._events: list[Event] = []
        self._had_room = True

    @property
    def free(self) -> int:
        """See `Executor.free`; a cluster that grows is used."""
        # One that waits keeps Ray from idling, and makes a cluster with a scaler grow.
        return self._slots() + 1 - len(self._running)

    def _slots(self) -> int:
        have = self._ray.cluster_resources()
        slots = have.get("CPU", 0.0) / self.spec.cpus
        if self.spec.gpus:
            slots = min(slots, have.get("GPU", 0.0) / self.spec.gpus)
        return int(slots)

    def submit(self, trial: TrialSpec) -> None:
        digest = trial.digest
        if not self.locks.take(digest):
            self._events.append(Event("busy", digest))
        elif self.store.has(digest):
            self.locks.release(digest)
            self._events.append(Event("stored", digest))
        else:
            task = self._task.remote(trial.model_dump_json(), self.run, self._board, self._mark)
            self._running[task] = digest

    def poll(self, timeout: float) -> list[Event]:
        events, self._events = self._events, []
        had_room, self._had_room = self._had_room, self._slots() > 0
        if had_room and not self._had_room:
            what = "no node of the cluster has room for a trial; waiting for one"
            events.append(Event("notice", reason=what))
        if not self._running or events:
            time.sleep(0.0 if events else timeout)
            return events
        ready, _ = self._ray.wait(list(self._running), timeout=timeout)
        events = [self._ended(task, self._running.pop(task)) for task in ready]
        with contextlib.suppress(self._ray.exceptions.RayError):
            seen = self._ray.get(self._board.read.remote(), timeout=5)
            running = set(self._running.values())
            events += [Event("progress", name, *at) for name, at in seen.items() if name in running]
        return events

    def close(self) -> None:
        """See `Executor.close`; a cluster that was running before goes on."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            for task in self._running:
                self._ray.cancel(task, force=True)
            self._ray.kill(self._board)
        for digest in self._running.values():
            self.locks.release(digest)
        self._open.close()

    def _ended(self, task: Any, digest: str) -> Event:
        try:
            self.store.put(digest, self._ray.get(task))
        except self._ray.exceptions.RayTaskError as error:
            # Raised by what ran on the node: a full disk, a package that is not there.
            cause = error.cause if isinstance(error.cause, Exception) else error
            line = first_line(Exception(Text.from_ansi(str(cause)).plain))
            return Event("lost", digest, reason=f"its node: {type(cause).__name__}: {line}")
        except self._ray.exceptions.RayError as error:
            line = f"{type(error).__name__}: {first_line(error)[:200]}"
            return Event("lost", digest, reason=f"its Ray worker was lost ({line})")
        finally:
            self.locks.release(digest)
        return Event("stored", digest)


class _Board:
    """An actor beside the runner that keeps the last word on each trial."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[str, float]] = {}

    def write(self, digest: str, phase: str, share: float) -> None:
        self.last[digest] = (phase, share)

    def read(self) -> dict[str, tuple[str, float]]:
        last, self.last = self.last, {}
        return last


@contextlib.contextmanager
def _marked(store: Store) -> Iterator[Path]:
    """A file of this run in the study's folder, by which a node knows that it sees it, no copy."""
    mark = store.folder.absolute() / LOCKS / f"ray.{secrets.token_hex(16)}"
    with writing(store.folder):
        mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def run_on_node(spec: str, run: str, board: Any, mark: Path) -> dict[str, bytes]:
    """Runs a trial on a node, and gives the files of its folder; `OSError` if the disk is full.

    Where the node sees the study's folder it stores them too: the runner may be lost by now.
    """
    trial = TrialSpec.model_validate_json(spec)

    def progress(phase: str, share: float) -> None:
        board.write.remote(trial.digest, phase, share)

    with work_folder(mark, trial.digest) as work:
        files = run_to_files(run, trial, work, progress)
        if mark.parents[1] in work.parents:
            Store(mark.parents[1]).put(trial.digest, files)
    return files


@contextlib.contextmanager
def work_folder(mark: Path, digest: str, patience: float = _PATIENCE) -> Iterator[Path]:
    """Where a trial keeps what it would resume from: the study's folder, or else a temporary one.

    For as many seconds as `patience` says it waits for the end of an attempt before this one. A
    node that was cut off may go on with that; then this one starts from nothing.
    """
    folder, lock = mark.parents[1], None
    if os.path.isfile(mark) and os.access(folder, os.W_OK):
        work = Store(folder).work(digest)
        # Taken, or a file system without locks. The kernel frees it with its process.
        with contextlib.suppress(OSError, NotImplementedError):
            work.mkdir(parents=True, exist_ok=True)
            lock = FileLock(work / "lock", timeout=patience).acquire()
    if lock is None:
        with tempfile.TemporaryDirectory(prefix="sparseattn-") as temporary:
            yield Path(temporary)
        return
    with lock:
        yield work


@contextlib.contextmanager
def joined(spec: ExecutorSpec) -> Iterator[ModuleType]:
    """Joins a cluster for the length of a block, unless this process has joined one before.

    Yields:
        The module `ray`.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: There is no cluster at the address, or this machine has not what a trial takes.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if spec.address == LOCAL:
        options["include_dashboard"] = False
    # Ray asks for this to become its default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _knock(spec.address)
        ray.init(address=spec.address, **options)
    # Ray raises an AssertionError about an address that it cannot read.
    except (AssertionError, OSError, OverflowError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"executor.address: no Ray cluster at {spec.address!r} ({first_line(error)}); start "
            "one with `ray start --head` and give its HOST:PORT, or auto for the one on this "
            "machine, or local to start one for the study"
        ) from None
    try:
        if spec.address == LOCAL:
            _check_room(ray, spec)
        yield ray
    finally:
        ray.shutdown()


def import_ray() -> ModuleType:
    """The module `ray`; `MissingExtraError` if it is not installed."""
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


def _check_room(ray: ModuleType, spec: ExecutorSpec) -> None:
    """A trial that no node has room for would wait for ever; only a real cluster may grow."""
    have = ray.cluster_resources()
    for key, name, wanted in (("cpus", "CPU", spec.cpus), ("gpus", "GPU", spec.gpus)):
        if wanted > have.get(name, 0.0):
            raise StudyError(
                f"executor.{key}: a trial asks for {wanted:g}, and this machine has "
                f"{have.get(name, 0.0):g}; ask for no more, or join a cluster"
            )


def _knock(address: str) -> None:
    """Makes sure that somebody listens at an address: Ray would wait for minutes."""
    if address == "auto":  # a cluster that has died leaves its address in the file
        folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
        file = folder / "ray" / "ray_current_cluster"
        address = os.environ.get("RAY_ADDRESS", "")
        if not address and file.is_file():
            address = file.read_text(encoding="utf-8").strip()
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
