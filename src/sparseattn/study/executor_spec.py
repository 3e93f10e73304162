"""What a study file says about where its trials run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sparseattn.tasks.schema import Integer, Real, StrictModel

__all__ = ["ExecutorSpec"]


class ExecutorSpec(StrictModel):
    """Where trials run; no part of what they are.

    Attributes:
        kind: Worker processes on this machine, or a Ray cluster.
        workers: Local: how many; by default one for each GPU, or else for each core.
        threads: Local: threads of each process; by default the cores are shared out.
        address: Ray: the cluster to join; `local` starts one on this machine.
        cpus: Ray: processor cores of a trial.
        gpus: Ray: GPUs of a trial; a fraction shares one.
        retries: Ray: how often a trial is started again when its node is lost.
    """

    kind: Literal["local", "ray"] = "local"
    workers: Annotated[Integer, Field(ge=1)] | None = None
    threads: Annotated[Integer, Field(ge=1)] | None = None
    address: str = "auto"
    cpus: Annotated[Real, Field(gt=0)] = 1.0
    gpus: Annotated[Real, Field(ge=0)] = 0.0
    retries: Annotated[Integer, Field(ge=0)] = 3
