"""What `sparseattn lengthen` does: from a saved model to a folder."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparseattn.errors import DataError, reason
from sparseattn.models.config import FIELD
from sparseattn.models.encoder import encoder_of
from sparseattn.models.lengthen.lengthening import Lengthened, lengthened, owner_of
from sparseattn.models.lengthen.loading import loaded, read_back
from sparseattn.models.names import resolve
from sparseattn.models.quiet import quiet
from sparseattn.plan import Plan

__all__ = ["lengthen_folder"]

#: What to write where a plan is asked for, to get none.
_NONE = "none"


def lengthen_folder(name: str, to: int, out: Path, plan: str) -> Iterator[str]:
    """Lengthens a saved model and saves it with its tokenizer.

    Args:
        name: See `sparseattn.models.names.resolve`; a folder of sentence-transformers stays one.
        to: Tokens to take.
        out: A new or empty folder; it is written whole or not at all.
        plan: A spec string, the JSON file of a plan, or `none`.

    Yields:
        What to tell the user.

    Raises:
        DataError: The model cannot be loaded, or `out` cannot be written to or holds something.
        MissingExtraError: The model needs a package that is not installed.
        UnsupportedModelError: See `lengthen`.
        PlanError: The plan's file holds none, or it does not fit the model.
        PatternError: A spec string is wrong.
    """
    wanted = _plan(plan)
    where = resolve(name)
    with _draft(out) as draft, quiet():
        model, tokenizer = loaded(name, where)
        stock = FIELD not in vars(encoder_of(model).config)
        done = lengthened(model, tokenizer, to=to, plan=wanted)
        yield str(done)
        if tokenizer is None:
            yield f"note: {name} has no tokenizer; give yours model_max_length={to}"
        with _writing(out):
            done.model.save_pretrained(str(draft))
            if done.model is owner_of(done.model) and tokenizer is not None:
                tokenizer.save_pretrained(draft)
        problem = read_back(done, draft)
    yield f"wrote {out}; read back, its tensors and outputs are the same"
    yield from _how_to_load(done, out, problem)
    if stock and wanted is not None and len(wanted.entries) == 1:
        lengths = sorted({min(done.before or to, to), to})
        yield (
            f"next: sparseattn bench predict {shlex.quote(name)} --plan "
            f"{shlex.quote(str(wanted.entries[0].pattern))} --lengths {','.join(map(str, lengths))}"
        )


def _plan(text: str) -> Plan | None:
    if text == _NONE:
        return None
    return Plan.read(text)


def _how_to_load(done: Lengthened, out: Path, problem: str | None) -> Iterator[str]:
    owner = owner_of(done.model)
    if done.plan is None:
        yield f"load it with {type(owner).__name__}.from_pretrained({str(out)!r})"
    else:
        yield f"load it with sparseattn.load({str(out)!r})"
    if owner is done.model:
        return
    if problem is None:
        first = "" if done.plan is None else "after import sparseattn, "
        yield f"or, {first}with SentenceTransformer({str(out)!r})"
    else:
        yield f"SentenceTransformer({str(out)!r}) cannot apply the plan by itself: {problem}"


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end, or disappears."""
    place = out.absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise DataError(f"{out} is there already; give an empty or new folder")
    missing = [folder for folder in place.parents if not folder.exists()]
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with _writing(out):
            draft.mkdir(parents=True)
        yield draft
        with _writing(out):
            if not place.exists():
                draft.rename(place)
            else:
                for path in draft.iterdir():
                    path.rename(place / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # the result is in it
                folder.rmdir()


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turns a failure to write into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        why = reason(error).splitlines()[0]
        raise DataError(f"cannot write to {out}: {why}") from error
