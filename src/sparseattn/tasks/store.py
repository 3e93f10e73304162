"""Tokenised data on disk, shared by trials and processes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow

__all__ = ["quiet", "remembered"]

_SUMMARY = "summary.json"


def remembered(
    place: Path, build: Callable[[], tuple[datasets.DatasetDict, dict[str, Any]]]
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Reads data and its summary from a folder; makes and writes them if it is not there.

    The folder appears whole or not at all: it is written under another name and renamed. Two
    processes that make it at the same time end up with the same one.
    """
    found = _read(place)
    if found is not None:
        return found
    data, summary = build()
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        with quiet():
            data.save_to_disk(draft)
        (draft / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
    except OSError:
        # Another process was faster, or nothing can be written here: what was made still serves.
        if not place.is_dir():
            return data, summary
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _read(place) or (data, summary)


def _read(place: Path) -> tuple[datasets.DatasetDict, dict[str, Any]] | None:
    try:
        summary = json.loads((place / _SUMMARY).read_text(encoding="utf-8"))
        return datasets.DatasetDict.load_from_disk(place), summary
    except (OSError, ValueError, pyarrow.ArrowException):
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the progress bars of `datasets` out of the way; puts the setting back."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
