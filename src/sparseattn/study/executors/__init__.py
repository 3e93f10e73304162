"""Where trials run: local worker processes, or a Ray cluster."""

from __future__ import annotations

from sparseattn.study.executors.base import Executor
from sparseattn.study.file.spec import ExecutorSpec
from sparseattn.study.folder.claims import Claims
from sparseattn.study.folder.store import Store

__all__ = ["make"]


def make(spec: ExecutorSpec, store: Store, claims: Claims, run: str) -> Executor:
    """Starts an executor.

    Args:
        spec: Which one.
        store: The study's folder.
        claims: The claims of this process.
        run: The function that runs a trial, as `module:function`.

    Raises:
        StudyError: The cluster is not there.
        MissingExtraError: Ray is not installed.
    """
    if spec.kind == "ray":
        from sparseattn.study.executors.ray import RayExecutor

        return RayExecutor(store, claims, spec, run=run)
    from sparseattn.study.executors.local import LocalExecutor

    return LocalExecutor(store, workers=spec.workers, threads=spec.threads, run=run)
