"""Where trials run: local worker processes, or a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sparseattn.study.locks import TrialLocks
from sparseattn.study.runner import Executor
from sparseattn.study.spec import ExecutorSpec
from sparseattn.study.store import Store

__all__ = ["make", "reached"]


def reached(spec: ExecutorSpec, start: bool = True) -> AbstractContextManager[object]:
    """Keeps the connection to a cluster for the length of a block, if trials run on one.

    Args:
        spec: Where trials run.
        start: Whether a cluster may be started on this machine for that.

    Raises:
        StudyError: The cluster is not there, or has not what a trial takes.
        MissingExtraError: Ray is not installed.
    """
    if spec.kind == "local":
        return nullcontext()
    from sparseattn.study.executors.ray import LOCAL, import_ray, joined

    if spec.address == LOCAL and not start:
        return nullcontext(import_ray())
    return joined(spec)


def make(spec: ExecutorSpec, store: Store, locks: TrialLocks, run: str) -> Executor:
    """Starts an executor, for which `run` names the function of a trial, as `module:function`.

    Raises:
        StudyError: See `reached`.
        MissingExtraError: See `reached`.
    """
    if spec.kind == "ray":
        from sparseattn.study.executors.ray import RayExecutor

        return RayExecutor(store, locks, spec, run)
    from sparseattn.study.executors.local import LocalExecutor

    return LocalExecutor(store, spec.workers, spec.threads, run)
