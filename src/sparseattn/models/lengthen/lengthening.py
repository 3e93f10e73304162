"""Making an encoder take longer texts, in place."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from sparseattn.backend import AUTO
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.encoder import encoder_of, evaluating, owner_of, random_outputs
from sparseattn.models.lengthen import PLAN
from sparseattn.models.lengthen.growth import Growth, change, refused
from sparseattn.models.positions import Positions, max_tokens
from sparseattn.models.sparsify import attach, plan_of, restore, sparsify
from sparseattn.models.state import followed
from sparseattn.plan import Plan

#: A short batch with padding: real tokens of each text.
PADDED = (24, 7)


@dataclass(frozen=True)
class Lengthened:
    """What was done to a model; `print` shows it.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer, if there was one.
        before: Tokens it had positions for; None without a limit.
        read: Tokens the tokenizer let through before; None without a limit.
        after: Tokens it takes now.
        how: How it knows where a token stands, and what came of it.
        copied: Tables of learned positions that were copied over and over.
        computed: Tensors that were computed for the new limit.
        plan: The plan on it now; None where it is dense.
    """

    model: Any
    tokenizer: Any
    before: int | None
    read: int | None
    after: int
    how: str
    copied: tuple[str, ...]
    computed: tuple[str, ...]
    plan: Plan | None

    def __str__(self) -> str:
        """What changed, what stands on it, and what was checked."""
        grown = self.before is not None and self.before < self.after
        positions = f"{_count(self.before)}{f' -> {self.after:,}' if grown else ', enough'}"
        lines = [f"{type(encoder_of(self.model)).__name__}: positions {positions}", self.how]
        if self.copied:
            lines.append(f"copied over and over: {', '.join(self.copied)}")
        if self.computed:
            lines.append(f"computed for the new limit: {', '.join(self.computed)}")
        if self.tokenizer is not None:
            lines.append(f"tokenizer: {_count(self.read)} -> {self.after:,} tokens")
        lines.append(f"plan: {'none' if self.plan is None else self.plan}")
        if grown:
            lines.append(f"checked: without a plan, bit-equal outputs at {self.before:,} tokens")
        under = "" if self.plan is None else " under the plan"
        lines.append(f"checked: a text of {self.after:,} tokens runs{under}")
        return "\n".join(lines)


def lengthen(
    model: Any, tokenizer: Any = None, *, to: int, plan: Plan | Any = PLAN, backend: str = AUTO
) -> Any:
    """Makes an encoder take texts of up to `to` tokens, in place.

    Tables of learned positions are copied over and over, as Longformer does (arXiv 2004.05150,
    section 5); fixed ones are computed further; rotary and bucketed relative positions are left
    alone and only the limit is raised, if that changes no output. Which of these a model has is
    seen in a run. Without a plan, outputs at the old lengths stay bit-equal. If anything fails the
    model is left as it was.

    New positions are copies that nothing has trained yet: fine-tune on long texts. Lengthen before
    an optimiser is made, because the table of positions becomes another parameter.

    Args:
        model: A transformers encoder, with or without a head, or a `SentenceTransformer`.
        tokenizer: Its limit is raised too; a `SentenceTransformer` brings its own.
        to: Tokens to take, special ones included.
        plan: What the model attends to from then on, see `sparsify`. None puts none on it: a dense
            model stays dense, and a plan that it carries already stays.
        backend: See `sparsify`.

    Returns:
        The model; save it as any other, and read it back with `load`.

    Raises:
        UnsupportedModelError: The model cannot be lengthened; the message says why. Or it takes
            `to` tokens already.
        PlanError: The plan names a layer or head that the model lacks.
        PatternError: A spec string is wrong.
        BackendError: There is no such backend, or it cannot serve this model family.
    """
    return lengthened(model, tokenizer, to=to, plan=plan, backend=backend).model


def lengthened(
    model: Any, tokenizer: Any = None, *, to: int, plan: Plan | Any = PLAN, backend: str = AUTO
) -> Lengthened:
    """`lengthen`, telling what it did; see there."""
    encoder = encoder_of(model)
    if isinstance(to, bool) or not isinstance(to, int) or to < 1:
        raise refused(encoder, f"to must be a whole number of tokens >= 1; got {to!r}")
    plan = None if plan is None else Plan.of(plan)
    reader = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
    kept, before = max_tokens(None, reader), followed(encoder)
    with ExitStack() as undo, evaluating(model):
        if before is not None:
            restore(model)
            undo.callback(attach, model, before)
        limit, how, growth = _grow(model, encoder, kept, to, undo)
        if reader is not None:
            change(undo, reader, "model_max_length", to)
        if hasattr(model, "max_seq_length"):
            change(undo, model, "max_seq_length", to)
        undo.callback(lambda: followed(encoder) and restore(model))
        if before is not None:
            attach(model, before)
        if plan is not None:
            try:
                sparsify(model, plan, tokenizer=reader, backend=backend)
            except UnsupportedModelError as error:
                why = f"{error}; without a plan it can be lengthened"
                raise UnsupportedModelError(why) from error
        if not bool(torch.isfinite(random_outputs(encoder, [to])).all()):
            raise refused(encoder, f"its outputs at {to:,} tokens are not finite")
        undo.pop_all()
    copied, computed = (tuple(growth.copied), tuple(growth.computed)) if growth else ((), ())
    return Lengthened(model, reader, limit, kept, to, how, copied, computed, plan_of(model))


def _grow(
    model: Any, encoder: Any, kept: int | None, to: int, undo: ExitStack
) -> tuple[int | None, str, Growth | None]:
    """Gives the model the positions that it lacks; returns its limit and what came of it."""
    owner, name = owner_of(model), type(encoder).__name__
    positions = Positions.of(owner, encoder)
    limit = positions.limit
    if kept is not None and to <= kept and (limit is None or kept < limit):
        own = "" if limit is None else f", and {name} has {limit:,} positions"
        raise UnsupportedModelError(
            f"the tokenizer keeps {kept:,} tokens of a text already{own}; {to:,} are no more"
        )
    if limit is not None and to <= limit and (kept is None or to <= kept):
        raise UnsupportedModelError(f"{name} takes {limit:,} tokens already; {to:,} are no more")
    if limit is None or to <= limit:
        how = f"{'relative ' if positions.relative else ''}positions: no new ones needed"
        return limit, how, None
    growth = Growth.of(owner, encoder, positions, to)
    batches = [[min(n, limit) for n in PADDED], [limit]]
    if not positions.tables and not growth.fixed:
        # One that scales its positions by the limit may do so only beyond it.
        batches.append([min(limit + max(PADDED), to)])
    growth.check(encoder, batches)
    if growth.copied:
        how = "learned positions: the new ones are copies, untrained; fine-tune on long texts"
    elif growth.fixed:
        how = "fixed positions, computed further"
    elif positions.rotary:
        how = "rotary positions: nothing to extend, only the limit was raised"
    elif positions.relative:
        how = "relative positions, the same beyond some distance: only the limit was raised"
    else:
        raise refused(
            encoder,
            "a run does not show how it knows where a token stands: it has no table of positions, "
            "no rotary frequencies and no bias for each pair of tokens",
        )
    growth.apply(owner, undo)
    return limit, how, growth


def _count(limit: int | None) -> str:
    return "without limit" if limit is None else f"{limit:,}"
