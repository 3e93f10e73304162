"""Putting a plan on a model, and taking it off again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import MethodType
from typing import Any

from torch import nn

from sparseattn import backend as backends
from sparseattn.errors import PlanError
from sparseattn.models import masks
from sparseattn.models.config import FIELD, SparsityConfig
from sparseattn.models.encoder import encoder_of, probe
from sparseattn.models.interface import LAYERS, NAME, register
from sparseattn.models.lengthen.positions import tables_of
from sparseattn.models.state import ATTRIBUTE, SparsityState, attached_state, refuse_replica
from sparseattn.plan import Plan, Selection

__all__ = ["attach_record", "restore", "sparsified", "sparsify"]

#: What plain `from_pretrained` is told where it could only run the model dense.
_NEEDS_LOAD = "sparseattn (load this model with sparseattn.load)"


def sparsify(
    model: Any,
    plan: Plan | Any,
    layers: Selection = ":",
    heads: Selection = ":",
    *,
    tokenizer: Any = None,
    backend: str = backends.AUTO,
) -> Any:
    """Puts a plan on a model, in place.

    The model stays an ordinary one: Trainer, PEFT, Accelerate and `save_pretrained` work as before.
    A plan that is already on it is replaced.

    Args:
        model: A transformers encoder, with or without a head, or a wrapper around one (PEFT,
            sentence-transformers).
        plan: A plan, a pattern, a spec string, or a dict from layers to these; see `Plan.of`.
        layers: Layers for a single pattern: `"6:"`, `[0, 1]`, `-1`; the others stay dense.
        heads: Likewise for heads.
        tokenizer: Tells which tokens are separators and special, for patterns that ask.
        backend: A backend's name, or `auto`.

    Returns:
        The model.

    Raises:
        UnsupportedModelError: The model does not let its attention be replaced.
        PlanError: The plan names a layer or head that the model lacks.
        PatternError: A spec string is wrong.
        BackendError: There is no such backend, or it cannot serve this model family.
    """
    made = Plan.of(plan, layers, heads)
    encoder = encoder_of(model)
    special, separators = _special_ids(tokenizer, encoder.config)
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    if state is not None and tokenizer is None:
        special, separators = state.record.special, state.record.separators
    return attach_record(model, SparsityConfig(made, backend, special, separators))


def attach_record(model: Any, record: SparsityConfig) -> Any:
    """`sparsify`, with everything that a config.json keeps already known."""
    if record.backend != backends.AUTO:
        backends.backend(record.backend)
    encoder = encoder_of(model)
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    if state is not None and not _intact(encoder, state):
        restore(model)
        state = None
    if state is None:
        register()
        found = probe(encoder)
        names = list(inspect.signature(encoder.forward).parameters)
        route = bool(masks.modules_of(encoder))
        tables = [(encoder.get_submodule(name), at) for name, at in tables_of(encoder).items()]
        before = encoder.config._attn_implementation
        state = SparsityState(record, found, names, before, route, tables)
    record.plan.resolve(state.heads)
    if state.mask_route:
        masks.check_backend(encoder, record.backend)
    if not state.attached:
        _attach(model, encoder, state)
    state.record, state.compiler, state.current = record, None, None
    _write_config(encoder.config, state)
    return model


def _intact(encoder: Any, state: SparsityState) -> bool:
    """Whether all that `sparsify` put on an encoder is still there; pickling loses its forward."""
    own, modules = encoder.__dict__.get("forward"), set(encoder.modules())
    return (
        own is not None
        and getattr(own, "__func__", None) is not type(encoder).forward
        and all(layer.module in modules for layer in state.layers)
        and all(hook.id in (hook.hooks_dict_ref() or {}) for hook in state.hooks)
        and (state.mask_route or encoder.config._attn_implementation == NAME)
    )


@cache
def _following(kind: Any) -> Callable[..., Any]:
    """The forward of an encoder class, under a plan; keeps its signature for those who look."""
    stock: Callable[..., Any] = kind.forward

    @wraps(stock)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: SparsityState = getattr(self, ATTRIBUTE)
        return state.forward(self, stock, args, kwargs)

    return forward


def _attach(model: nn.Module, encoder: Any, state: SparsityState) -> None:
    state.attached = True
    for index, layer in enumerate(state.layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
    if not state.mask_route:
        encoder.set_attn_implementation(NAME)
    setattr(encoder, ATTRIBUTE, state)
    if model is not encoder:
        hook = model.register_forward_pre_hook(state.take_columns, with_kwargs=True, prepend=True)
        state.hooks.append(hook)
    state.hooks.append(encoder.register_forward_pre_hook(refuse_replica))
    # Not a hook: PEFT and sentence-transformers call `forward` itself, which passes hooks by. A
    # bound method is copied together with its model.
    state.inner = encoder.__dict__.get("forward")
    encoder.forward = MethodType(_following(encoder.__class__), encoder)
    if state.mask_route:
        for layer in state.layers:
            hook = layer.module.register_forward_pre_hook(state.rewrite_mask, with_kwargs=True)
            state.hooks.append(hook)


def _write_config(config: Any, state: SparsityState) -> None:
    setattr(config, FIELD, state.record.to_json())
    # A public name in config.json: plain from_pretrained() then asks for this implementation, and
    # fails where it could only run dense, instead of running dense without a word.
    config.attn_implementation = _NEEDS_LOAD if state.mask_route else NAME


def _special_ids(
    tokenizer: Any, config: Any
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Ids of the special tokens and of the separators, from the tokenizer or else the config."""
    if tokenizer is not None:
        separators = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None}
        # Unknown and masked words are words: special is what the tokenizer adds by itself.
        edges = {tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} - {None}
        return tuple(sorted(separators | edges)), tuple(sorted(separators)) or None
    named = {getattr(config, name, None) for name in ("sep_token_id", "eos_token_id")}
    separators = {index for index in named if isinstance(index, int)}
    return None, tuple(sorted(separators)) or None


def restore(model: Any) -> Any:
    """Takes a plan off a model, which is then exactly as before `sparsify`.

    Returns:
        The model.

    Raises:
        PlanError: The model carries no plan.
    """
    encoder = encoder_of(model)
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    if state is None:
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to restore")
    for hook in state.hooks:
        hook.remove()
    if "forward" in encoder.__dict__:
        del encoder.forward
    if state.inner is not None:
        encoder.forward = state.inner
    for layer in state.layers:
        if hasattr(layer.module, LAYERS):
            delattr(layer.module, LAYERS)
    delattr(encoder, ATTRIBUTE)
    for name in (FIELD, "attn_implementation"):
        if name in encoder.config.__dict__:
            delattr(encoder.config, name)
    if not state.mask_route and encoder.config._attn_implementation == NAME:
        encoder.set_attn_implementation(state.before)
    return model


@contextmanager
def sparsified(model: Any, plan: Plan | Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """`sparsify` for the length of a block; afterwards the model is as it was.

    Args:
        model: See `sparsify`.
        plan: See `sparsify`.
        *args: See `sparsify`.
        **kwargs: See `sparsify`.
    """
    state = attached_state(model)
    before = None if state is None else (state.record, state.compiler)
    sparsify(model, plan, *args, **kwargs)
    try:
        yield model
    finally:
        if before is None:
            restore(model)
        elif state is not None:
            state.record, state.compiler = before
            _write_config(encoder_of(model).config, state)
