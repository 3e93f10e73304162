"""Saying what the plan on a model comes to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparseattn import backend as backends
from sparseattn.auto import select
from sparseattn.counting import MeasuredSparsity, SparsityReport
from sparseattn.errors import DataError, PlanError
from sparseattn.models import masks
from sparseattn.models.encoder import attention_dropout, encoder_of
from sparseattn.models.state import SparsityState, attached_state, followed
from sparseattn.rules import LayerRule
from sparseattn.tokens import TokenBatch


def describe(model: Any, batch: Mapping[str, Any] | None = None) -> SparsityReport:
    """Counts what the plan on a model allows in a batch, and says what computes it and why.

    Where the model's last batch was padded like this one, the backends are those that computed it;
    otherwise those that would, in the mode in which the model is.

    Args:
        model: A sparsified model, however it was loaded.
        batch: A collated batch as the model takes it, annotation columns included.

    Returns:
        The counts; `print` shows a table.

    Raises:
        PlanError: The model carries no plan.
        AnnotationError: The batch lacks an annotation that a pattern needs.
        DataError: It is no batch, or longer than the positions that the model has.
    """
    state = _state_of(model, "describe")
    if not isinstance(batch, Mapping):
        raise DataError(
            "a plan is counted over a batch, such as tokenizer(texts, padding=True, "
            f"return_tensors='pt') makes; got {'none' if batch is None else repr(batch)}"
        )
    compiled = state.compile(state.tokens(dict(batch)))
    groups = state.config.plan.resolve(state.heads)
    report = SparsityReport.of(compiled, [" / ".join(str(p) for _, p in group) for group in groups])
    layers = []
    for index, (count, rule) in enumerate(zip(report.layers, compiled.layers, strict=True)):
        name, reason = _backend_of(state, index, rule, compiled.bias(index))
        computed = backends.backend(name).computed(rule)
        layers.append(replace(count, computed=computed, backend=name, reason=reason))
    return replace(report, layers=tuple(layers))


def measure(model: Any, batches: Iterable[Mapping[str, Any]]) -> MeasuredSparsity:
    """Counts the plan on a model over many batches, and the score entries that are computed.

    Args:
        model: A sparsified model.
        batches: Collated batches, as the model is run on them: they decide about padding.

    Raises:
        PlanError: The model carries no plan.
    """
    state = _state_of(model, "count")
    computed = 0

    def tokens_of() -> Iterator[TokenBatch]:
        nonlocal computed
        names: list[str] = []
        for batch in batches:
            here = {name: column.to(state.encoder.device) for name, column in batch.items()}
            names = names or [layer.backend for layer in describe(model, here).layers]
            tokens = state.tokens(here)
            known: dict[int, int] = {}
            for rule, name in zip(state.compile(tokens).layers, names, strict=True):
                if id(rule) not in known:
                    known[id(rule)] = backends.backend(name).computed(rule)
                computed += known[id(rule)]
            yield tokens

    measured = MeasuredSparsity.of(state.config.plan, tokens_of(), state.heads, state.windows)
    return replace(measured, computed=computed)


def _state_of(model: Any, purpose: str) -> SparsityState:
    """What a model follows, however it was loaded."""
    encoder = encoder_of(model)
    config = followed(encoder)
    if config is None:
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to {purpose}")
    return attached_state(encoder) or SparsityState.of(encoder, config)


def _backend_of(
    state: SparsityState, index: int, rule: LayerRule, bias: Tensor | None
) -> tuple[str, str]:
    """The backend that a layer took in the last pass if that was padded so, or would take."""
    last = state.last
    if last is not None and index in last.chosen:
        before = last.compiled.layers[index].valid
        if torch.equal(before, rule.valid.to(before.device)):
            return last.chosen[index]
    if state.mask_only:
        return masks.ONLY
    if state.config.backend != backends.AUTO:
        return state.config.backend, backends.BY_NAME
    layer, encoder = state.layers[index], state.encoder
    trains = encoder.training and any(p.requires_grad for p in encoder.parameters())
    # One number that looks like all of them: only shape, type and device are asked about.
    one = torch.empty((), dtype=encoder.dtype, device=rule.valid.device).requires_grad_(trains)
    states = one.expand(len(rule.valid), layer.heads, rule.length, layer.width)
    added: Any = bias
    if layer.biased and bias is None:
        added = backends.DistanceBias(states.new_zeros(layer.heads, 2 * rule.length - 1))
    dropout = attention_dropout(encoder.config) if encoder.training else 0.0
    chosen, reason = select(
        backends.AUTO, backends.Call(states, states, states, rule, 1.0, dropout, added)
    )
    return chosen.name, f"{reason}; a prediction: this batch was not run"
