"""What `sparseattn lengthen` does: from a saved model to a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sparseattn.errors import DataError, PlanNotAppliedError, first_line
from sparseattn.models.card import write_card
from sparseattn.models.encoder import encoder_of, owner_of, random_outputs
from sparseattn.models.lengthen.growth import tensors
from sparseattn.models.lengthen.lengthening import PADDED, Lengthened, lengthened
from sparseattn.models.load import load_model, quiet
from sparseattn.models.saving import new_folder, tokenizer_of, writing
from sparseattn.models.sparsify import plan_of
from sparseattn.plan import Plan


def lengthen_folder(name: str, to: int, out: Path, plan: str) -> Iterator[str]:
    """Lengthens a saved model and saves it with its tokenizer; yields what to tell the user.

    Args:
        name: See `sparseattn.resolve`; a folder of sentence-transformers stays one.
        to: Tokens to take.
        out: A new or empty folder; it is written whole or not at all.
        plan: A spec string, the JSON file of a plan, or `none`.

    Raises:
        DataError: The model cannot be loaded, or `out` cannot be written to or holds something.
        MissingExtraError: The model needs a package that is not installed.
        SparseAttnError: See `lengthen`.
    """
    new_plan = None if plan == "none" else Plan.read(plan)
    with new_folder(out) as draft, quiet():
        model = load_model(name)
        is_bare = model is owner_of(model)
        tokenizer = tokenizer_of(name) if is_bare else model.tokenizer
        was_dense = plan_of(model) is None
        done = lengthened(model, tokenizer, to=to, plan=new_plan)
        yield str(done)
        if tokenizer is None:
            yield f"note: {name} has no tokenizer; give yours model_max_length={to}"
        with writing(out):
            model.save_pretrained(str(draft))
            if is_bare and tokenizer is not None:
                tokenizer.save_pretrained(draft)
            if done.plan is not None:
                write_card(draft, done.plan, name, str(done).splitlines())
        problem = _read_back(done, draft)
    yield f"wrote {out}; read back, its tensors and outputs are the same"
    yield from _how_to_load(done, out, problem)
    if was_dense and new_plan is not None and len(new_plan.entries) == 1:
        lengths = sorted({min(done.before or to, to), to})
        yield (
            f"next: sparseattn bench predict {shlex.quote(name)} --plan "
            f"{shlex.quote(str(new_plan.entries[0].pattern))} "
            f"--lengths {','.join(map(str, lengths))}"
        )


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


def _read_back(done: Lengthened, folder: Path) -> str | None:
    """Loads what was written and compares tensors and outputs with the model at hand.

    Returns:
        Why `SentenceTransformer` cannot load the folder by itself, or None.
    """
    owner, again = owner_of(done.model), load_model(str(folder))
    _compare(owner, owner_of(again), folder)
    if owner is done.model:
        return None
    if again.max_seq_length != done.after:
        raise DataError(f"read back, {folder} takes {again.max_seq_length} tokens")
    try:
        _compare(owner, owner_of(type(done.model)(str(folder), device="cpu")), folder)
    except (PlanNotAppliedError, ValueError) as error:
        return first_line(error)
    return None


def _compare(model: Any, again: Any, folder: Path) -> None:
    mine, other = tensors(model), tensors(again)
    for name, tensor in mine.items():
        if name not in other or not torch.equal(tensor.cpu(), other[name].cpu()):
            raise DataError(f"read back from {folder}, {name} is not what was written")
    first, second = encoder_of(model), encoder_of(again)
    if not torch.equal(random_outputs(first, PADDED), random_outputs(second, PADDED)):
        raise DataError(f"read back from {folder}, the model has other outputs")
