"""Where a trial ran."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["environment"]

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "spacy", "numpy")


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describes this process.

    Args:
        device: Where the model ran.
        precision: The type that its products were computed in.
    """
    import torch

    import sparseattn

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {
        "python": platform.python_version(),
        "sparseattn": sparseattn.__version__,
        **{name: found for name in _PACKAGES if (found := _version(name))},
        "commit": commit(),
        "device": device,
        "gpu": gpu,
        "dtype": precision,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "rank": int(os.environ.get("RANK", 0)),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit that this package is checked out at, with `+` after it if files differ."""
    root = Path(__file__).resolve().parents[4]
    if not (root / ".git").exists():
        return None
    try:
        found = _git(root, "rev-parse", "HEAD")
        return f"{found}+" if _git(root, "status", "--porcelain", "-uno") else found
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    made = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return made.stdout.strip()
