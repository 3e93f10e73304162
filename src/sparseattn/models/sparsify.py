"""Putting a plan on a model, and taking it off again."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial, wraps
from types import MethodType
from typing import Any

from torch import nn

from sparseattn import backend as backends
from sparseattn.errors import BackendError, PlanError, UnsupportedModelError
from sparseattn.models import masks, own_attention
from sparseattn.models.config import (
    ATTRIBUTE,
    FIELD,
    NAME,
    QUANTIZED,
    SparsityConfig,
    remove_plan,
)
from sparseattn.models.encoder import default_implementation, encoder_of, owner_of
from sparseattn.models.int8 import is_quantized
from sparseattn.models.interface import LAYERS, pack_inputs, register, unpack_outputs
from sparseattn.models.replaced import refuse_dense
from sparseattn.models.state import SparsityState, followed, refuse_replica
from sparseattn.plan import Plan
from sparseattn.selection import Selection

#: References to a module's dict of layers when it is looked at: its own, a local name, an argument.
_OWN_REFERENCES = 3

#: What layers have hooks for.
_LAYER_HOOKS = (masks.rewrite_mask, own_attention.refuse_outside, pack_inputs, unpack_outputs)

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
        tokenizer: Tells which tokens are separators and special, for patterns that ask; that of a
            model of sentence-transformers by default.
        backend: A backend's name, or `auto`.

    Returns:
        The model.

    Raises:
        UnsupportedModelError: The model does not let its attention be replaced.
        PlanError: The plan is empty, names a layer or head that the model lacks, or was made for
            another shape of model.
        PatternError: A spec string is wrong.
        BackendError: There is no such backend, or it cannot serve this model family.
    """
    plan = Plan.of(plan, layers, heads)
    if not plan.entries:
        raise PlanError(
            "the plan is empty, so the model would run dense; name a layer, or write 'full()'"
        )
    return attach(model, config_of(model, plan, tokenizer, backend))


def attach(model: Any, config: SparsityConfig) -> Any:
    """`sparsify`, with everything that a config.json keeps already known."""
    if config.backend != backends.AUTO:
        backends.backend(config.backend)
    encoder = encoder_of(model)
    _refuse_shallow_copy(model, owner_of(model), encoder)
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    if state is not None and not _intact(encoder, state):
        restore(model)
        state = None
    if state is None:
        _clear(encoder)
        register()
    new = state or SparsityState.of(encoder, config)
    config.plan.resolve(new.heads)
    if new.mask_only and config.backend not in (backends.AUTO, "masked"):
        raise BackendError(
            f"backend {config.backend!r} cannot serve {type(encoder).__name__}: it computes its "
            "own attention and takes only a mask; choose from: auto, masked"
        )
    if state is None:
        _attach(encoder, new)
    if model is not encoder and all(model is not owner for owner in new.owners):
        _attach_owner(model, encoder, new)
    new.config, new.compiler, new.last = config, None, None
    quantized = {QUANTIZED: "int8"} if is_quantized(encoder) else {}
    for carrier in (encoder.config, owner_of(model).config):
        setattr(carrier, FIELD, config.to_json() | quantized)
        # A public name in config.json: plain from_pretrained() then asks for this implementation,
        # and fails where it could only run dense, instead of running dense without a word.
        carrier.attn_implementation = _NEEDS_LOAD if new.own else NAME
    return model


def _refuse_shallow_copy(*modules: nn.Module) -> None:
    """A shallow copy shares its layers with the original, which would change with it.

    They share the dict that holds the layers. To ask who holds it is slow, and not worth it where
    there are no more references than one module has.
    """
    for module in modules:
        layers = module.__dict__["_modules"]
        if sys.getrefcount(layers) > _OWN_REFERENCES and _sharing(module):
            raise UnsupportedModelError(
                f"this {type(module).__name__} and a shallow copy of it (copy.copy) share their "
                "layers, so both would change; use copy.deepcopy()"
            )


def _sharing(module: nn.Module) -> bool:
    """Whether another module holds the very dict of layers that this one holds."""
    layers = module.__dict__["_modules"]
    for holder in gc.get_referrers(layers):
        fields = vars(holder) if isinstance(holder, nn.Module) else holder
        if not isinstance(fields, dict) or fields is module.__dict__:
            continue
        if fields.get("_modules") is layers:
            return True
    return False


def _intact(encoder: Any, state: SparsityState) -> bool:
    """Whether all that `sparsify` put on an encoder is still there; pickling loses its forward."""
    return (
        getattr(encoder.forward, "__func__", None) is not type(encoder).forward
        and [module for module in encoder.modules() if hasattr(module, LAYERS)]
        == list(dict.fromkeys(layer.module for layer in state.layers))
        and all(hook.id in (hook.hooks_dict_ref() or {}) for hook in state.hooks)
        and own_attention.is_replaced(encoder)
        and (state.own or encoder.config._attn_implementation == NAME)
    )


def _clear(encoder: Any) -> None:
    """Takes off what layers carry, those of another sparsified model too."""
    own_attention.put_back(encoder)
    for module in encoder.modules():
        vars(module).pop(LAYERS, None)
        for hooks, with_kwargs in (
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_with_kwargs),
        ):
            for key in [key for key, hook in hooks.items() if hook in _LAYER_HOOKS]:
                del hooks[key]
                with_kwargs.pop(key, None)


@cache
def _following(kind: Any) -> Callable[..., Any]:
    """The forward of an encoder class, under a plan; keeps its signature for those who look."""
    stock: Callable[..., Any] = kind.forward

    @wraps(stock)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: SparsityState = getattr(self, ATTRIBUTE)
        return state.forward(stock, args, kwargs)

    return forward


def _attach(encoder: Any, state: SparsityState) -> None:
    own_attention.replace(encoder)  # first: it may refuse, and then nothing is to be left behind
    for index, layer in enumerate(state.layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
    if not state.own:
        encoder.set_attn_implementation(NAME)
    setattr(encoder, ATTRIBUTE, state)
    state.hooks.append(encoder.register_forward_pre_hook(refuse_replica))
    # Not a hook: PEFT and sentence-transformers call `forward` itself, which passes hooks by. A
    # bound method is copied together with its model.
    state.inner = encoder.__dict__.get("forward")
    encoder.forward = MethodType(_following(encoder.__class__), encoder)
    if state.own:
        hook = masks.rewrite_mask if state.mask_only else own_attention.refuse_outside
        for layer in state.layers:
            handle = layer.module.register_forward_pre_hook(hook, with_kwargs=True)
            state.hooks.append(handle)


def _attach_owner(owner: nn.Module, encoder: Any, state: SparsityState) -> None:
    _forget_replaced(owner, encoder)
    path = next(name for name, module in owner.named_modules() if module is encoder)
    enter = partial(state.before_owner, path=tuple(path.split(".")))
    state.hooks.append(owner.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
    state.owners.append(owner)


def _forget_replaced(owner: nn.Module, encoder: Any) -> SparsityState | None:
    """Takes off the hooks of an encoder that was replaced; returns what it carried."""
    lost = None
    for key, hook in list(owner._forward_pre_hooks.items()):
        if hook is refuse_dense:
            del owner._forward_pre_hooks[key]
        other = getattr(getattr(hook, "func", None), "__self__", None)
        if isinstance(other, SparsityState) and other.encoder is not encoder:
            lost = other
            for handle in other.hooks:
                if handle.id == key:
                    handle.remove()
    return lost


def config_of(
    model: Any, plan: Plan, tokenizer: Any = None, backend: str = backends.AUTO
) -> SparsityConfig:
    """A plan with the ids of special tokens and separators.

    They are those that the tokenizer adds. Without one they are those of the plan on the model, of
    the tokenizer that a model of sentence-transformers brings along, or else of its config.
    """
    encoder = encoder_of(model)
    known = followed(encoder)
    if known is not None and tokenizer is None:
        return replace(known, plan=plan, backend=backend)
    if tokenizer is None and hasattr(own := getattr(model, "tokenizer", None), "sep_token_id"):
        tokenizer = own
    source = encoder.config if tokenizer is None else tokenizer
    ids = {getattr(source, name, None) for name in ("sep_token_id", "eos_token_id")}
    separators = {index for index in ids if isinstance(index, int)}
    special = None
    if tokenizer is not None:
        # Unknown and masked words are words: special is what the tokenizer adds by itself.
        edges = {tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} - {None}
        special = tuple(sorted(separators | edges))
    return SparsityConfig(plan, backend, special, tuple(sorted(separators)) or None)


def restore(model: Any) -> Any:
    """Takes a plan off a model, which is then exactly as before `sparsify`.

    Takes it off a model that plain `from_pretrained` loaded, too; and where the encoder was
    replaced, what the model around it still carries.

    Returns:
        The model.

    Raises:
        PlanError: The model carries no plan.
    """
    encoder = encoder_of(model)
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    owner = owner_of(model)
    carriers = (encoder.config, owner.config)
    if state is None and all(FIELD not in vars(carrier) for carrier in carriers):
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to restore")
    _refuse_shallow_copy(model, owner, encoder)
    if state is not None:
        _detach(encoder, state)
    lost = [_forget_replaced(module, encoder) for module in {model, owner}]
    for carrier in carriers:
        remove_plan(carrier)
    if encoder.config._attn_implementation == NAME:
        before = default_implementation(encoder) if state is None else state.before
        encoder.set_attn_implementation(before)
    if owner.config._attn_implementation == NAME:
        befores = [other.before for other in lost if other is not None]
        owner.config._attn_implementation = (befores or [encoder.config._attn_implementation])[0]
    return model


def _detach(encoder: Any, state: SparsityState) -> None:
    for hook in state.hooks:
        hook.remove()
    if "forward" in encoder.__dict__:
        del encoder.forward
    if state.inner is not None:
        encoder.forward = state.inner
    _clear(encoder)
    delattr(encoder, ATTRIBUTE)


def plan_of(model: Any) -> Plan | None:
    """The plan that a model follows, however it was loaded; None where it is dense."""
    config = followed(encoder_of(model))
    return None if config is None else config.plan


@contextmanager
def sparsified(model: Any, plan: Plan | Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """`sparsify` for the length of a block; afterwards the model follows what it did before.

    The arguments are those of `sparsify`.
    """
    encoder = encoder_of(model)
    before = followed(encoder)
    compiler = getattr(getattr(encoder, ATTRIBUTE, None), "compiler", None)
    sparsify(model, plan, *args, **kwargs)
    try:
        yield model
    finally:
        if before is None:
            restore(model)
        else:
            attach(model, before)
            getattr(encoder, ATTRIBUTE).compiler = compiler
