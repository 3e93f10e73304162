"""Putting a plan on a model, and taking it off again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial, wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseattn.accounting import Report
from sparseattn.backends import base as backends
from sparseattn.errors import PlanError, PlanNotAppliedError
from sparseattn.models import masks
from sparseattn.models.encoder import Attention, encoder_of, probe
from sparseattn.models.interface import KEYWORD, LAYERS, NAME, Pass, register
from sparseattn.models.record import FIELD, Record
from sparseattn.plan import CompiledPlan, Plan, Selection
from sparseattn.tokens import COLUMNS, TokenBatch

__all__ = ["Attached", "attach_record", "attached", "describe", "restore", "sparsified", "sparsify"]

_ATTRIBUTE = "_sparseattn_attached"
#: What plain `from_pretrained` is told where it could only run the model dense.
_NEEDS_LOAD = "sparseattn (load this model with sparseattn.load)"


@dataclass(eq=False)
class Attached:
    """What `sparsify` put on a model; lives on its encoder.

    Attributes:
        record: The plan and how to apply it.
        layers: The encoder's attention layers, in the order of their calls.
        names: Names of the encoder's positional parameters.
        before: The attention implementation to go back to.
        mask_route: Whether the plan reaches the layers through their masks.
        hooks: What to remove.
        pending: Annotation columns taken from an outer model's keywords.
        current: The last pass.
        running: Whether it still is.
        attached: Whether it is on the model.
        inner: A forward that something else had put on the encoder before.
        compiler: Makes the compiled plan of a batch in place of the plan itself; for plans that are
            being learned.
        observer: Told of each layer's attention before it is computed; for calibration.
    """

    record: Record
    layers: list[Attention]
    names: list[str]
    before: str
    mask_route: bool
    hooks: list[RemovableHandle] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)
    current: Pass | None = None
    running: bool = False
    attached: bool = False
    inner: Callable[..., Any] | None = None
    compiler: Callable[[TokenBatch], CompiledPlan] | None = None
    observer: Callable[[int, backends.Call], None] | None = None

    @property
    def heads(self) -> list[int]:
        """Heads of each layer."""
        return [layer.heads for layer in self.layers]

    @property
    def windows(self) -> list[int | None]:
        """Radius that each layer never exceeds."""
        return [layer.window for layer in self.layers]

    def take_columns(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of the outer model: keeps the annotation columns for the encoder."""
        self.pending = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        return args, kwargs

    def forward(self, encoder: Any, stock: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Runs the encoder's own forward with the plan compiled for its batch."""
        kwargs = self.enter(encoder, args, dict(kwargs))
        own = self.inner or partial(stock, encoder)
        self.running = True
        try:
            output = own(*args, **kwargs)
        finally:
            self.running = False
        self.leave(encoder)
        return output

    def enter(self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Compiles the plan for a batch and adds it to the forward keywords."""
        if not self.mask_route and encoder.config._attn_implementation != NAME:
            raise PlanNotAppliedError(
                f"this model was sparsified, but its attn_implementation is now "
                f"{encoder.config._attn_implementation!r}; call sparsify() again, or restore()"
            )
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        columns = {**self.pending, **columns, **dict(zip(self.names, args, strict=False)), **kwargs}
        self.pending = {}
        tokens = self.record.tokens(_checked(columns), _embedding(encoder))
        made = self.compile(tokens)
        self.current = Pass(made, self.record.backend, observer=self.observer)
        if not self.mask_route:
            return {**kwargs, KEYWORD: self.current}
        if "attention_mask" in self.names[: len(args)]:
            return kwargs
        return {**kwargs, "attention_mask": masks.entering(self.layers[0].module, tokens.valid)}

    def compile(self, tokens: TokenBatch) -> CompiledPlan:
        """The compiled plan of a batch."""
        if self.compiler is not None:
            return self.compiler(tokens)
        return self.record.plan.compile(tokens, self.heads, self.windows)

    def rewrite_mask(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of a self-attention that takes a mask."""
        hidden = args[0] if args else kwargs["hidden_states"]
        made = self._pass_of(module, args[1] if len(args) > 1 else kwargs.get("attention_mask"))
        index = made.layer(module)
        mask = masks.mask_for(module, made.compiled.layers[index], hidden)
        made.chosen[index] = ("masked", "the only one for this model family")
        if len(args) > 1:
            return (hidden, mask, *args[2:]), kwargs
        return args, {**kwargs, "attention_mask": mask}

    def _pass_of(self, module: nn.Module, mask: Tensor | None) -> Pass:
        """The pass that a self-attention runs in, or ran in if it is now being recomputed.

        The mask is marked with it: activation checkpointing hands the same one in again, when other
        passes may have come since.
        """
        if self.running and self.current is not None:
            if mask is not None:
                setattr(mask, KEYWORD, self.current)
            return self.current
        marked: Pass | None = getattr(mask, KEYWORD, None)
        if marked is None:
            raise PlanNotAppliedError(
                f"no plan reached {type(module).__name__}; call sparsify() again, and checkpoint "
                "activations with use_reentrant=False"
            )
        return marked

    def leave(self, encoder: nn.Module) -> None:
        """Checks that every layer has followed the plan."""
        made = self.current
        if made is None or len(made.chosen) < len(self.layers):
            count = 0 if made is None else len(made.chosen)
            raise PlanNotAppliedError(
                f"only {count} of {len(self.layers)} attention layers of {type(encoder).__name__} "
                "followed the plan; call sparsify() again"
            )


def _checked(columns: dict[str, Any]) -> dict[str, Any]:
    mask, embeds = columns.get("attention_mask"), columns.get("inputs_embeds")
    if mask is not None and mask.dim() != 2:
        raise PlanError(
            f"attention_mask must be [batch, length] on a sparsified model; got {list(mask.shape)}"
        )
    if mask is None and columns.get("input_ids") is None and embeds is not None:
        columns["attention_mask"] = torch.ones(embeds.shape[:2], device=embeds.device)
    return columns


def _embedding(encoder: Any) -> Tensor | None:
    weight = getattr(encoder.get_input_embeddings(), "weight", None)
    return None if weight is None else weight.detach()


def attached(model: nn.Module) -> Attached | None:
    """What `sparsify` put on a model, or None."""
    return getattr(encoder_of(model), _ATTRIBUTE, None)


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
    state: Attached | None = getattr(encoder, _ATTRIBUTE, None)
    if state is not None and tokenizer is None:
        special, separators = state.record.special, state.record.separators
    return attach_record(model, Record(made, backend, special, separators))


def attach_record(model: Any, record: Record) -> Any:
    """`sparsify`, with everything that a config.json keeps already known."""
    if record.backend != backends.AUTO:
        backends.backend(record.backend)
    encoder = encoder_of(model)
    state: Attached | None = getattr(encoder, _ATTRIBUTE, None)
    if state is not None and not _intact(encoder, state):
        restore(model)
        state = None
    if state is None:
        register()
        found = probe(encoder)
        names = list(inspect.signature(encoder.forward).parameters)
        route = bool(masks.modules_of(encoder))
        state = Attached(record, found, names, encoder.config._attn_implementation, route)
    record.plan.resolve(state.heads)
    if state.mask_route:
        masks.check_backend(encoder, record.backend)
    if not state.attached:
        _attach(model, encoder, state)
    state.record, state.compiler, state.current = record, None, None
    _write_config(encoder.config, state)
    return model


def _intact(encoder: Any, state: Attached) -> bool:
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
        state: Attached = getattr(self, _ATTRIBUTE)
        return state.forward(self, stock, args, kwargs)

    return forward


def _attach(model: nn.Module, encoder: Any, state: Attached) -> None:
    state.attached = True
    for index, layer in enumerate(state.layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
    if not state.mask_route:
        encoder.set_attn_implementation(NAME)
    setattr(encoder, _ATTRIBUTE, state)
    if model is not encoder:
        hook = model.register_forward_pre_hook(state.take_columns, with_kwargs=True, prepend=True)
        state.hooks.append(hook)
    # Not a hook: PEFT and sentence-transformers call `forward` itself, which passes hooks by. A
    # bound method is copied together with its model.
    state.inner = encoder.__dict__.get("forward")
    encoder.forward = MethodType(_following(encoder.__class__), encoder)
    if state.mask_route:
        for layer in state.layers:
            hook = layer.module.register_forward_pre_hook(state.rewrite_mask, with_kwargs=True)
            state.hooks.append(hook)


def _write_config(config: Any, state: Attached) -> None:
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
    state: Attached | None = getattr(encoder, _ATTRIBUTE, None)
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
    delattr(encoder, _ATTRIBUTE)
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
    state = attached(model)
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


def describe(model: Any, batch: Mapping[str, Any]) -> Report:
    """Counts what the plan on a model allows in a batch, and says which backend computes it.

    Args:
        model: A sparsified model.
        batch: A collated batch as the model takes it, annotation columns included.

    Returns:
        The counts; `print` shows a table.

    Raises:
        PlanError: The model carries no plan.
        AnnotationError: The batch lacks an annotation that a pattern needs.
    """
    encoder = encoder_of(model)
    state: Attached | None = getattr(encoder, _ATTRIBUTE, None)
    if state is None:
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to describe")
    tokens = state.record.tokens(_checked(dict(batch)), _embedding(encoder))
    compiled = state.compile(tokens)
    groups = state.record.plan.resolve(state.heads)
    report = Report.of(compiled, [" / ".join(str(p) for _, p in group) for group in groups])
    layers = []
    for index, (count, rule) in enumerate(zip(report.layers, compiled.layers, strict=True)):
        name, _ = _chosen(state, index)
        computed = backends.backend(name).computed(rule)
        layers.append(replace(count, computed=computed, backend=name))
    return replace(report, layers=tuple(layers))


def _chosen(state: Attached, index: int) -> tuple[str, str]:
    """The backend of a layer in the last pass, or the one that would be taken."""
    if state.current is not None and index in state.current.chosen:
        return state.current.chosen[index]
    asked = state.record.backend
    return ("masked", "not run yet") if asked == backends.AUTO else (asked, "asked for by name")
