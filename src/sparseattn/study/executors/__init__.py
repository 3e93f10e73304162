"""Where trials run: local worker processes, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sparseattn.study.executors.base import Executor
from sparseattn.study.locks import TrialLocks
from sparseattn.study.spec import ExecutorSpec
from sparseattn.study.store import Store

__all__ = ["check_reached", "make", "reached"]


@contextmanager
def reached(spec: ExecutorSpec) -> Iterator[None]:
    """Keeps the connection to a cluster for the length of a block, if trials run on one.

    Raises:
        StudyError: The cluster is not there, or has not what a trial takes.
        MissingExtraError: Ray is not installed.
    """
    if spec.kind == "local":
        yield
        return
    from sparseattn.study.executors.ray import joined

    with joined(spec):
        yield


def check_reached(spec: ExecutorSpec) -> None:
    """Makes sure that there is where trials are to run; starts no cluster for that.

    Raises:
        StudyError: See `reached`.
        MissingExtraError: See `reached`.
    """
    if spec.kind == "ray" and spec.address == "local":
        from sparseattn.study.executors.ray import import_ray

        import_ray()
    else:
        with reached(spec):
            pass


def make(spec: ExecutorSpec, store: Store, locks: TrialLocks, run: str) -> Executor:
    """Starts an executor.

    Args:
        spec: Which one.
        store: The study's folder.
        locks: The locks of this process.
        run: The function that runs a trial, as `module:function`.

    Raises:
        StudyError: The cluster is not there.
        MissingExtraError: Ray is not installed.
    """
    if spec.kind == "ray":
        from sparseattn.study.executors.ray import RayExecutor

        return RayExecutor(store, locks, spec, run)
    from sparseattn.study.executors.local import LocalExecutor

    return LocalExecutor(store, spec.workers, spec.threads, run)
