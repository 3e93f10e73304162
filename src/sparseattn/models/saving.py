"""Folders of models, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sparseattn.errors import DataError, reason
from sparseattn.models.load import load_part


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a saved model; None where it has none."""
    try:
        tokenizer = load_part(name, "AutoTokenizer")
    except DataError:
        return None
    # Where there are no files, transformers makes one up that knows special tokens alone.
    return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_ids)) else None


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end, or disappears."""
    place = out.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise DataError(f"{out} is there already; give an empty or new folder")
    missing = [folder for folder in place.parents if not folder.exists()]
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with writing(out):
            draft.mkdir(parents=True)
        yield draft
        with writing(out):
            draft.rename(place)  # in one step, an empty folder in its place included
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # the result is in it
                folder.rmdir()


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns a failure to write into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        why = reason(error).splitlines()[0]
        raise DataError(f"cannot write to {out}: {why}") from error
