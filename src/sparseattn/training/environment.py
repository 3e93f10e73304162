"""The process that trains: its versions and machine, and the memory that it keeps."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "spacy", "numpy")


def check_alone() -> None:
    """Makes sure that no launcher started this process as one of several.

    Raises:
        StudyError: One did. Each process would train on whole batches, or run other trials.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise StudyError(
            f"a trial is trained by one process, and a launcher started {processes} processes of "
            "it; start it without one, and set executor.workers to run several trials at a time"
        )


def check_precision(precision: str, where: str = "") -> None:
    """Makes sure that this machine can train in a precision, in a reasonable time.

    Args:
        precision: `fp32`, `bf16` or `fp16`.
        where: What the message begins with.

    Raises:
        StudyError: It cannot; names those that it can train in.
    """
    if (why := unfit(precision)) is not None:
        fitting = ", ".join(name for name in ("fp32", "bf16", "fp16") if unfit(name) is None)
        raise StudyError(f"{where}{precision!r} {why}; choose from: {fitting}")


def unfit(precision: str) -> str | None:
    """Why this machine should not train in a precision; None where it may."""
    import torch

    if precision == "fp32" or torch.cuda.is_available():
        return None
    if precision == "fp16":
        return "needs a GPU, and this machine has none"
    slower = _bf16_slowdown()
    return f"takes {slower:.0f} times as long as fp32 on this CPU" if slower > _SLOW else None


#: A processor that has instructions for bf16 is faster with it, or hardly slower; one that has none
#: takes ten to a hundred times as long.
_SLOW = 5


@cache
def _bf16_slowdown() -> float:
    """How much longer a product of matrices takes in bf16 than in fp32, on this CPU."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        matrix, times = torch.ones(256, 256, dtype=dtype), []
        for _ in range(4):
            start = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) / seconds(torch.float32)


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describes this process, the device that a model ran on and the type of its products."""
    import torch

    import sparseattn

    return {
        "python": platform.python_version(),
        "sparseattn": sparseattn.__version__,
        **{name: found for name in _PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "device": device,
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "dtype": precision,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def free_memory() -> None:
    """Hands what the last trial freed back to the system.

    glibc keeps freed memory in pieces, and a trial with batches of other shapes cannot use all of
    them: workers would grow from trial to trial.
    """
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The commit that this package is checked out at, with `+` after it if files differ."""
    root = Path(__file__).resolve().parents[3]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    if not (root / ".git").exists():
        return None
    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
