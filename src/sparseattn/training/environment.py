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
