"""A sparse model as a module that can be traced: its attention in standard operators alone."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.backend import DistanceBias
from sparseattn.errors import PlanError, UnsupportedModelError
from sparseattn.exporting.attention import Attend, attention_of, cut
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

#: The attention implementation of what is exported.
_NAME = "sparseattn_export"
#: Where its attention modules find the pass that runs.
_PASS = "_sparseattn_pass"


class _Pass:
    """The forward pass that runs, and what its layers share.

    No list of the module: tracing puts others in the places of those.
    """

    def __init__(self, layers: tuple[Groups, ...]) -> None:
        self.layers = layers
        self.begin(torch.empty(0))

    def begin(self, valid: Tensor) -> None:
        """Begins another, where true stands for a real token. Shape: [batch, length], bool."""
        self._valid = valid
        self._attends: dict[Any, Attend] = {}
        self._calls: dict[int, int] = {}

    def groups(self, module: nn.Module) -> Groups:
        """The heads and spans of the layer that this call of an attention module computes."""
        numbers: tuple[int, ...] = getattr(module, LAYERS)
        call = self._calls.get(numbers[0], 0)
        self._calls[numbers[0]] = call + 1
        return self.layers[numbers[call]]

    def attention(
        self, span: Span, heads: tuple[int, ...], bias: DistanceBias | None, dtype: torch.dtype
    ) -> Attend:
        """What computes the attention of some heads of a layer."""
        key = (span,) if bias is None else (span, heads, bias)
        if key not in self._attends:
            self._attends[key] = attention_of(span, self._valid, dtype, bias, heads)
        return self._attends[key]


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
        self.model = owner_of(copy if own is None else restore(copy)).eval().cpu()
        encoder = encoder_of(self.model)
        if masks.modules_of(encoder):
            raise UnsupportedModelError(
                f"{type(encoder).__name__} cannot be exported: its scores depend on words and on "
                "distances at once, and would stay dense in the file"
            )
        attentions = attention_layers(encoder)
        heads, windows = [x.heads for x in attentions], [x.window for x in attentions]
        self.layers = spans_of(plan, heads, windows)
        self.inputs = input_names(self.model)
        tables = position_tables(encoder).items()
        limits = [encoder.get_submodule(name).weight.shape[0] - first for name, first in tables]
        self.longest = min(limits, default=None)
        self.record = Record(
            plan=plan.to_json(),
            heads=heads,
            windows=windows,
            vocabulary=encoder.get_input_embeddings().weight.shape[0],
            special=sorted(special_of(encoder.config)),
            longest=self.longest,
        )
        own_attention.fix_biases(encoder)
        self._pass = _Pass(self.layers)
        _replace_attention(encoder, attentions, self._pass)

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
        self._pass.begin(attention_mask.bool())
        output = self.model(**batch, return_dict=True)
        self._pass.begin(torch.empty(0))
        return {name: value for name, value in output.items() if isinstance(value, Tensor)}


def input_names(model: Any) -> tuple[str, ...]:
    """What a transformers model takes of a batch, as far as files do."""
    names = ("input_ids", "attention_mask")
    parameters = inspect.signature(model.forward).parameters
    has_types = getattr(model.config, "type_vocab_size", 0) > 1
    return (*names, "token_type_ids") if has_types and "token_type_ids" in parameters else names


def _replace_attention(encoder: Any, layers: list[Attention], running: _Pass) -> None:
    register(_NAME, _attention)
    for index, layer in enumerate(layers):
        setattr(layer.module, LAYERS, (*getattr(layer.module, LAYERS, ()), index))
        setattr(layer.module, _PASS, running)
    own_attention.attend_by(encoder, _attend)
    if own_attention.modules_of(encoder):
        encoder.config._attn_implementation = _NAME  # hands masks on as they are
    encoder.set_attn_implementation(_NAME)


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
    position_bias: Tensor | DistanceBias | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention of an `Exportable`; the signature is that of transformers' functions.

    From [batch, heads, length, head width] each, perhaps with fewer heads of keys and values, to
    [batch, length, heads, head width].
    """
    if isinstance(position_bias, Tensor):
        raise UnsupportedModelError(
            f"{type(module).__name__} cannot be exported: what it adds to its scores is not known "
            "to depend on how far apart two tokens are alone"
        )
    shared, width = query.shape[1] // key.shape[1], query.shape[3]
    if shared > 1:
        key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scaled = query * (width**-0.5 if scaling is None else scaling)
    # Heads first, before keys are gathered, each several times: to move them later takes longer.
    states = [each.transpose(0, 1) for each in (scaled, key, value)]
    current: _Pass = getattr(module, _PASS)
    groups = current.groups(module)
    contexts, order = [], [head for heads, _ in groups for head in heads]
    for heads, span in groups:
        chosen = states
        if len(groups) > 1:
            index = torch.tensor(heads, device=query.device)
            chosen = [each.index_select(0, index) for each in states]
        attend = current.attention(span, heads, position_bias, query.dtype)
        contexts.append(cut(attend(*chosen), 2, width))
    if len(groups) == 1:
        return contexts[0], None
    back = torch.tensor([order.index(head) for head in range(len(order))], device=query.device)
    return torch.cat(contexts, dim=2).index_select(2, back), None
