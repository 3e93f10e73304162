"""A sparse model as a module that can be traced: its attention in standard operators alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import PlanError, UnsupportedModelError
from sparseattn.exporting.attention import Table, attend, cut, table_of
from sparseattn.exporting.bias import biases_of
from sparseattn.exporting.record import Record
from sparseattn.exporting.spans import Groups, Span, spans_of
from sparseattn.models import masks, own_attention
from sparseattn.models.encoder import (
    Attention,
    attention_layers,
    encoder_of,
    owner_of,
    random_batch,
    special_of,
)
from sparseattn.models.int8 import is_quantized
from sparseattn.models.interface import LAYERS, register
from sparseattn.models.positions import position_tables
from sparseattn.models.sparsify import plan_of, restore
from sparseattn.plan import Plan

#: The attention implementation of what is exported.
_NAME = "sparseattn_export"
#: Where its attention modules find the pass that runs.
_RUNNING = "_sparseattn_running"
#: Methods of a length x length bias, which is not needed once its values by distance are known.
_BIASES = ("compute_bias", "compute_position_bias")


@dataclass(eq=False)
class Traced:
    """One forward pass.

    Attributes:
        layers: The heads and spans of each layer.
        biases: The name and value of each layer's bias, see `biases_of`; None without one.
        valid: True for a real token. Shape: [batch, length], bool.
        dtype: Of the scores.
        added: Where what layers add to their scores is kept, and nothing is computed.
        tables: Shared by layers: by span, and by bias and heads where there is one.
        calls: How often each attention module was called.
    """

    layers: tuple[Groups, ...]
    biases: Sequence[tuple[str, Tensor] | None]
    valid: Tensor
    dtype: torch.dtype
    added: list[Tensor | None] | None = None
    tables: dict[Any, Table] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    def layer(self, module: nn.Module) -> int:
        """The layer that this call of an attention module computes."""
        numbers: tuple[int, ...] = getattr(module, LAYERS)
        call = self.calls.get(numbers[0], 0)
        self.calls[numbers[0]] = call + 1
        return numbers[call]

    def table(self, layer: int, heads: tuple[int, ...], span: Span) -> Table:
        """What some heads of a layer need to attend."""
        named = self.biases[layer]
        key = (span,) if named is None else (span, named[0], heads)
        if key not in self.tables:
            bias = None if named is None else named[1][list(heads)]
            self.tables[key] = table_of(span, self.valid, self.dtype, bias)
        return self.tables[key]


class _Running:
    """The pass that runs now. No list: tracing puts others in the places of a module's."""

    traced: Traced | None = None


class Exportable(nn.Module):
    """A copy of a sparse model whose attention is made of standard operators.

    Takes `input_ids` and `attention_mask`, and `token_type_ids` where the model tells apart what
    they number; returns the tensors of the model's output by name.

    Args:
        model: A sparse model.
        plan: Another plan than its own.

    Attributes:
        inputs: Names of what it takes, in order.
        longest: The most tokens that it takes; None without a limit.
        layers: What the heads of each layer became.
        record: What a file of it says of itself.

    Raises:
        PlanError: There is no plan, or it cannot be exported.
        UnsupportedModelError: The model's attention cannot be reached.
    """

    def __init__(self, model: Any, plan: Plan | None = None) -> None:
        super().__init__()
        own = plan_of(model)
        plan = plan or own
        if plan is None:
            raise PlanError(
                f"{type(model).__name__} carries no plan, so there is nothing sparse to export; "
                "call sparsify(model, 'neighbor(radius=64) | global(cls)') before"
            )
        if is_quantized(model):
            raise UnsupportedModelError(
                f"{type(model).__name__} is int8 in torch; export the model as it was before "
                "quantize(), with int8=True"
            )
        copy = deepcopy(model)
        self.model = owner_of(copy if own is None else restore(copy)).eval()
        encoder = encoder_of(self.model)
        attentions = _checked(encoder)
        heads, windows = [x.heads for x in attentions], [x.window for x in attentions]
        self.layers = spans_of(plan, heads, windows)
        self.inputs = input_names(self.model)
        self.longest = _longest(encoder)
        self.record = Record(
            plan=plan.to_json(),
            heads=heads,
            windows=windows,
            vocabulary=encoder.get_input_embeddings().weight.shape[0],
            special=sorted(special_of(encoder.config)),
            longest=self.longest,
        )
        self._dtype = encoder.dtype
        self._running = _Running()
        _replace_attention(encoder, attentions, self._running)
        self._names: list[str | None] = []
        for bias in biases_of(self._added, self.longest):
            self._names.append(None if bias is None else self._kept(bias))
        for module in encoder.modules():
            for name in filter(partial(hasattr, module), _BIASES):
                setattr(module, name, _no_bias)

    def _kept(self, bias: Tensor) -> str:
        """The name of the buffer that holds a bias, each once."""
        for name, known in self.named_buffers(recurse=False):
            if known is bias:
                return name
        name = f"bias{len(self._buffers)}"
        self.register_buffer(name, bias)
        return name

    def _added(self, length: int) -> list[Tensor | None]:
        """What the layers add to the scores of a text; see `biases_of`."""
        encoder = encoder_of(self.model)
        batch = random_batch(encoder, [length])
        added: list[Tensor | None] = []
        valid = batch["attention_mask"].bool()
        self._running.traced = Traced(self.layers, (), valid, self._dtype, added)
        with torch.no_grad():
            encoder(**batch)
        return added

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Runs the model on a padded batch. Shape of each: [batch, length], int64."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        for column in batch.values():
            for size, of_ids in zip(column.shape, input_ids.shape, strict=True):
                torch._check(size == of_ids)  # type: ignore[no-untyped-call]
        biases = [None if name is None else (name, getattr(self, name)) for name in self._names]
        valid = attention_mask.bool()
        self._running.traced = Traced(self.layers, biases, valid, self._dtype)
        output = self.model(**batch, return_dict=True)
        self._running.traced = None
        return {name: value for name, value in output.items() if isinstance(value, Tensor)}


def _checked(encoder: Any) -> list[Attention]:
    """The attention layers; refuses those that cannot be replaced."""
    if masks.modules_of(encoder):
        raise UnsupportedModelError(
            f"{type(encoder).__name__} cannot be exported: its scores depend on words and on "
            "distances at once, and would stay dense in the file"
        )
    return attention_layers(encoder)


def input_names(model: Any) -> tuple[str, ...]:
    """What a transformers model takes of a batch, as far as files do."""
    names = ("input_ids", "attention_mask")
    parameters = inspect.signature(model.forward).parameters
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    return (*names, "token_type_ids") if has_types and "token_type_ids" in parameters else names


def _longest(encoder: Any) -> int | None:
    """How many tokens there are learned positions for."""
    tables = position_tables(encoder).items()
    return min((encoder.get_submodule(n).weight.shape[0] - at for n, at in tables), default=None)


def _replace_attention(encoder: Any, layers: list[Attention], running: _Running) -> None:
    register(_NAME, _attention)
    for index, layer in enumerate(layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
        setattr(layer.module, _RUNNING, running)
    own_attention.attend_by(encoder, _attend)
    if own_attention.modules_of(encoder):
        encoder.config._attn_implementation = _NAME  # hands masks on as they are
    encoder.set_attn_implementation(_NAME)


def _no_bias(*_args: Any, **_keywords: Any) -> Tensor:
    return torch.zeros(1)


def _attend(module: Any, states: list[Tensor], _mask: Any, bias: Any) -> Tensor:
    """For families that compute their own attention."""
    query, key, value = states
    return _attention(module, query, key, value, None, position_bias=bias)[0].flatten(2)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention of an `Exportable`; the signature is that of transformers' functions.

    Args:
        module: The attention module that calls.
        query: Shape: [batch, heads, length, head width].
        key: As `query`, perhaps with fewer heads.
        value: As `key`.
        scaling: Factor of the scores; `head width ** -0.5` by default.
        position_bias: Added to the scaled scores; the pass knows it already.
            Shape: [1, heads, length, length].

    Returns:
        The context and no attention weights. Shape: [batch, length, heads, head width].
    """
    traced: Traced = getattr(module, _RUNNING).traced
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    if traced.added is not None:
        traced.added.append(position_bias)
        return value, None
    layer, width = traced.layer(module), query.shape[3]
    groups = traced.layers[layer]
    if len(groups) == 1:
        table = traced.table(layer, *groups[0])
        return cut(attend(query, key, value, table, scale), 2, width), None
    contexts, order = [], [head for members, _ in groups for head in members]
    for members, span in groups:
        chosen = torch.tensor(members, device=query.device)
        q, k, v = (states.index_select(2, chosen) for states in (query, key, value))
        table = traced.table(layer, members, span)
        contexts.append(cut(attend(q, k, v, table, scale), 2, width))
    back = torch.tensor([order.index(head) for head in range(len(order))], device=query.device)
    return torch.cat(contexts, dim=2).index_select(2, back), None
