"""A sparse model as a module that can be traced: its attention in standard operators alone."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import PlanError, UnsupportedModelError
from sparseattn.exporting.attention import Table, attend, cut, tables_of
from sparseattn.exporting.record import Record
from sparseattn.exporting.spans import Groups, Span, spans_of
from sparseattn.models import masks, own_attention
from sparseattn.models.encoder import (
    Attention,
    attention_layers,
    encoder_of,
    owner_of,
    special_of,
)
from sparseattn.models.int8 import is_quantized
from sparseattn.models.interface import LAYERS, register
from sparseattn.models.positions import position_tables
from sparseattn.models.sparsify import plan_of, restore
from sparseattn.plan import Plan

__all__ = ["Exportable"]

#: The attention implementation of what is exported, and the forward keyword of its `Traced`.
_NAME = "sparseattn_export"


@dataclass(eq=False)
class Traced:
    """One forward pass: the tables of its batch, and how often a shared module was called."""

    layers: tuple[Groups, ...]
    tables: dict[Span, Table]
    calls: dict[int, int]

    def groups(self, module: nn.Module) -> Groups:
        """The heads and spans of the layer that this call of an attention module computes."""
        numbers: tuple[int, ...] = getattr(module, LAYERS)
        call = self.calls.get(numbers[0], 0)
        self.calls[numbers[0]] = call + 1
        return self.layers[numbers[call]]


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
        self.inputs = _inputs(self.model)
        self.longest = _longest(encoder)
        self.record = Record(
            plan=plan.to_json(),
            heads=heads,
            windows=windows,
            vocabulary=encoder.get_input_embeddings().weight.shape[0],
            special=sorted(special_of(encoder.config)),
            longest=self.longest,
        )
        self._mask_at = list(inspect.signature(encoder.forward).parameters).index("attention_mask")
        _replace_attention(encoder, attentions)
        encoder.register_forward_pre_hook(self._hand_tables, with_kwargs=True)

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
        output = self.model(**batch, return_dict=True)
        return {name: value for name, value in output.items() if isinstance(value, Tensor)}

    def _hand_tables(self, encoder: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of the encoder: the layers find the tables of the batch among its keywords."""
        at = self._mask_at
        mask = args[at] if at < len(args) else kwargs["attention_mask"]
        spans = {span for groups in self.layers for _, span in groups}
        traced = Traced(self.layers, tables_of(spans, mask.bool(), encoder.dtype), {})
        return args, {**kwargs, _NAME: traced}


def _checked(encoder: Any) -> list[Attention]:
    """The attention layers; refuses those that cannot be replaced."""
    who = f"{type(encoder).__name__} cannot be exported"
    if masks.modules_of(encoder) or own_attention.modules_of(encoder):
        raise UnsupportedModelError(
            f"{who}: it computes its own attention, which would stay dense in the file"
        )
    layers = attention_layers(encoder)
    if any(layer.biased for layer in layers):
        raise UnsupportedModelError(
            f"{who}: it adds a bias to every score, which would be of length x length in the file"
        )
    return layers


def _inputs(model: Any) -> tuple[str, ...]:
    names = ("input_ids", "attention_mask")
    parameters = inspect.signature(model.forward).parameters
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    return (*names, "token_type_ids") if has_types and "token_type_ids" in parameters else names


def _longest(encoder: Any) -> int | None:
    """How many tokens there are learned positions for."""
    tables = position_tables(encoder).items()
    return min((encoder.get_submodule(n).weight.shape[0] - at for n, at in tables), default=None)


def _replace_attention(encoder: Any, layers: list[Attention]) -> None:
    register(_NAME, _attention)
    for index, layer in enumerate(layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
    encoder.set_attn_implementation(_NAME)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """The attention of an `Exportable`; the signature is that of transformers' functions.

    Args:
        module: The attention module that calls.
        query: Shape: [batch, heads, length, head width].
        key: As `query`, perhaps with fewer heads.
        value: As `key`.
        scaling: Factor of the scores; `head width ** -0.5` by default.
        **keywords: The rest of the forward keywords, the `Traced` among them.

    Returns:
        The context and no attention weights. Shape: [batch, length, heads, head width].
    """
    traced: Traced = keywords[_NAME]
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    groups, width = traced.groups(module), query.shape[3]
    if len(groups) == 1:
        return cut(attend(query, key, value, traced.tables[groups[0][1]], scale), 2, width), None
    contexts, order = [], [head for members, _ in groups for head in members]
    for members, span in groups:
        chosen = torch.tensor(members, device=query.device)
        q, k, v = (states.index_select(2, chosen) for states in (query, key, value))
        contexts.append(cut(attend(q, k, v, traced.tables[span], scale), 2, width))
    back = torch.tensor([order.index(head) for head in range(len(order))], device=query.device)
    return torch.cat(contexts, dim=2).index_select(2, back), None
