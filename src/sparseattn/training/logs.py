"""Where loggers write their files: beside the trials, not among what a trial resumes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["logged", "logging_to"]

#: The variables by which loggers learn where to write.
_VARIABLES = ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_DIR")


@contextmanager
def logging_to(folder: Path, loggers: Sequence[str]) -> Iterator[None]:
    """Lets loggers write into a folder, unless the user has said where.

    Args:
        folder: The folder; made if there are loggers, and stays if they write into it.
        loggers: Their names.
    """
    if not loggers:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    ours = [name for name in _VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(folder.absolute())))
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        with suppress(OSError):
            folder.rmdir()


def logged(folder: Path) -> dict[str, bytes]:
    """What was written there, under names that `Store.put` understands.

    Args:
        folder: The folder; it need not exist.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f"logs/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
