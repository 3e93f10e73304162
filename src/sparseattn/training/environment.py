"""The process that trains: its versions and machine, and the memory that it keeps."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
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
    # An AVX2 machine took 26 times as long for a training step in bf16 as in fp32.
    return None if has_bf16() else "is many times slower than fp32 on this CPU"


def has_bf16() -> bool:
    """Whether oneDNN has products of matrices in bf16 for this CPU."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describes this process, the device that a model ran on and the type of its products."""
    import torch

    import sparseattn

    return {
        "python": platform.python_version(),
        "sparseattn": sparseattn.__version__,
        **{name: found for name in _PACKAGES if (found := version_of(name))},
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


def version_of(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
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
