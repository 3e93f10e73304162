"""Making an encoder take longer texts, in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sparseattn.backend import AUTO
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.config import FIELD, SparsityConfig
from sparseattn.models.encoder import encoder_of
from sparseattn.models.lengthen import PLAN
from sparseattn.models.lengthen.growth import Edits, Growth
from sparseattn.models.lengthen.positions import Positions, find
from sparseattn.models.lengthen.runs import PADDED, evaluating, outputs, refused
from sparseattn.models.sparsify import attach_record, restore, sparsify
from sparseattn.models.state import attached_state
from sparseattn.plan import Plan

__all__ = ["Lengthened", "lengthen", "lengthened", "owner_of"]


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
        lines.append("plan: none" if self.plan is None else f"plan: {self.plan}")
        if grown:
            lines.append(f"checked: without a plan, bit-equal outputs at {self.before:,} tokens")
        under = "" if self.plan is None else " under the plan"
        lines.append(f"checked: a text of {self.after:,} tokens runs{under}")
        return "\n".join(lines)


def lengthen(
    model: Any,
    tokenizer: Any = None,
    *,
    to: int,
    plan: Plan | Any = PLAN,
    backend: str = AUTO,
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
    model: Any,
    tokenizer: Any = None,
    *,
    to: int,
    plan: Plan | Any = PLAN,
    backend: str = AUTO,
) -> Lengthened:
    """`lengthen`, telling what it did; see there."""
    encoder = encoder_of(model)
    if isinstance(to, bool) or not isinstance(to, int) or to < 1:
        raise refused(encoder, f"to must be a whole number of tokens >= 1; got {to!r}")
    wanted = None if plan is None else Plan.of(plan)
    reader = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
    edits, record = Edits(), _bare(model, encoder)
    try:
        with evaluating(model):
            found, growth = _grown(model, encoder, _limit(reader), to, edits)
        read = _limit(reader)
        if reader is not None:
            edits.set(reader, "model_max_length", to)
        if hasattr(model, "max_seq_length"):
            edits.set(model, "max_seq_length", to)
        if record is not None:
            attach_record(model, record)
        if wanted is not None:
            _sparsified(model, wanted, reader, backend)
        with evaluating(model):
            _check_long(encoder, to)
    except BaseException:
        if attached_state(model) is not None:
            restore(model)
        edits.undo()
        if record is not None:
            attach_record(model, record)
        raise
    state = attached_state(model)
    return Lengthened(
        model=model,
        tokenizer=reader,
        before=found.limit,
        read=read,
        after=to,
        how=_told(encoder, found, growth),
        copied=tuple(growth.copied) if growth else (),
        computed=tuple(growth.computed) if growth else (),
        plan=None if state is None else state.record.plan,
    )


def _grown(
    model: Any, encoder: Any, read: int | None, to: int, edits: Edits
) -> tuple[Positions, Growth | None]:
    """Gives the model the positions that it lacks."""
    owner = owner_of(model)
    found = find(owner, encoder)
    reach = min((n for n in (found.limit, read) if n is not None), default=None)
    if reach is not None and to <= reach:
        raise UnsupportedModelError(_reached(type(encoder).__name__, found.limit, read, to))
    if found.limit is None or to <= found.limit:
        return found, None
    growth = Growth.of(owner, encoder, found, to)
    batches = [[min(n, found.limit) for n in PADDED], [found.limit]]
    if not found.tables and not growth.fixed:
        # One that scales its positions by the limit may do so only beyond it.
        batches.append([min(found.limit + max(PADDED), to)])
    growth.check(encoder, batches)
    _told(encoder, found, growth)
    growth.apply(owner, edits)
    return found, growth


def _reached(model: str, positions: int | None, read: int | None, to: int) -> str:
    if read is not None and (positions is None or read < positions):
        own = f", and {model} has {positions:,} positions" if positions is not None else ""
        return f"the tokenizer keeps {read:,} tokens of a text already{own}; {to:,} are no more"
    return f"{model} takes {positions:,} tokens already; {to:,} are no more"


def owner_of(model: Any) -> Any:
    """The transformers model, head included, inside whatever the user passed."""
    from transformers import PreTrainedModel

    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def _bare(model: Any, encoder: Any) -> SparsityConfig | None:
    """Takes a plan off, whether `sparsify` or plain `from_pretrained` put it on."""
    state = attached_state(model)
    if state is not None:
        restore(model)
        return state.record
    if FIELD not in vars(encoder.config):
        return None
    record = SparsityConfig.from_json(getattr(encoder.config, FIELD))
    for name in {FIELD, "attn_implementation"} & vars(encoder.config).keys():
        delattr(encoder.config, name)
    encoder.set_attn_implementation(encoder._check_and_adjust_attn_implementation(None))
    return record


def _limit(tokenizer: Any) -> int | None:
    # Tokenizers that know no limit say 10 ** 30.
    found = getattr(tokenizer, "model_max_length", None)
    return found if found is not None and found < 10**9 else None


def _sparsified(model: Any, plan: Plan, tokenizer: Any, backend: str) -> None:
    try:
        sparsify(model, plan, tokenizer=tokenizer, backend=backend)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error}; without a plan it can be lengthened") from error


def _check_long(encoder: Any, to: int) -> None:
    if not bool(torch.isfinite(outputs(encoder, [to])).all()):
        raise refused(encoder, f"its outputs at {to:,} tokens are not finite")


def _told(encoder: Any, found: Positions, growth: Growth | None) -> str:
    """How a model knows where a token stands, and what came of it."""
    if growth is None:
        return f"{'relative ' if found.relative else ''}positions: no new ones needed"
    if growth.copied:
        return "learned positions: the new ones are copies, untrained; fine-tune on long texts"
    if growth.fixed:
        return "fixed positions, computed further"
    if found.rotary:
        return "rotary positions: nothing to extend, only the limit was raised"
    if found.relative:
        return "relative positions, the same beyond some distance: only the limit was raised"
    raise refused(
        encoder,
        "a run does not show how it knows where a token stands: it has no table of positions, no "
        "rotary frequencies and no bias for each pair of tokens",
    )


def _count(limit: int | None) -> str:
    return "without limit" if limit is None else f"{limit:,}"
