"""What this machine has for trials: cores and GPUs."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping

from sparseattn.errors import StudyError
from sparseattn.study.spec import ExecutorSpec

__all__ = ["check_devices", "cores", "devices"]


def cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def devices(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        environment: Its variables.
    """
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    return [str(index) for index in range(len(glob.glob("/dev/nvidia[0-9]*")))]


def check_devices(spec: ExecutorSpec) -> None:
    """Makes sure that there is a GPU for each process of a trial, where there are GPUs at all.

    Args:
        spec: Where trials run.

    Raises:
        StudyError: Two processes would share one, which NCCL refuses.
    """
    found = len(devices(os.environ))
    wanted = spec.processes * (spec.workers or 1)
    if spec.processes > 1 and 0 < found < wanted:
        raise StudyError(
            f"executor.processes: {spec.processes} for each of {spec.workers or 1} workers ask for "
            f"{wanted} GPUs, and this machine has {found}; ask for no more"
        )
