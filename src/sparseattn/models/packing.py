"""Batches of texts of different lengths without computing their padding.

Each layer of the encoder gets the real tokens of all texts in one row, and gives its output back
in the shape of the batch. Only inside its attention are queries, keys and values laid out by text
again: there plans and backends do as before, and leave padding out by themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseattn.errors import SparseAttnError, UnsupportedModelError
from sparseattn.models.config import ATTRIBUTE, remove_plan
from sparseattn.models.encoder import encoder_of, evaluating, owner_of, random_outputs
from sparseattn.models.interface import pack_inputs, unpack_outputs
from sparseattn.models.sparsify import plan_of, restore, sparsify
from sparseattn.models.state import SparsityState

#: Tokens of the texts that are tried, and what rounding explains of the largest output.
_LENGTHS, _CLOSE = (9, 4, 1), 1e-4


def packed(model: Any) -> Any:
    """Has a model compute no padding, in place; its outputs for real tokens stay the same.

    What calls it sees no difference: inputs and outputs are padded as before, in training too. A
    batch without padding runs as it did, and so does one whose hidden states are asked for.
    `sparsify` may change the plan, and `restore` takes both off; it is not saved with the model.

    Args:
        model: A transformers encoder, with or without a head, or a wrapper around one; a dense one
            stays dense.

    Returns:
        The model.

    Raises:
        UnsupportedModelError: Its attention cannot be reached, or its layers give other
            outputs for texts in one row.
    """
    encoder = encoder_of(model)
    dense = plan_of(model) is None
    if dense or getattr(encoder, ATTRIBUTE, None) is None:
        sparsify(model, "full()" if dense else plan_of(model))
    state: SparsityState = getattr(encoder, ATTRIBUTE)
    if state.packs:
        return model
    try:
        _pack(state)
    except SparseAttnError:
        if dense:
            restore(model)
        raise
    if dense:  # saved, it is dense
        for carrier in (encoder.config, owner_of(model).config):
            remove_plan(carrier)
    return model


def _pack(state: SparsityState) -> None:
    who = f"{type(state.encoder).__name__} cannot be packed"
    if state.own:
        raise UnsupportedModelError(f"{who}: it computes its own attention")
    if any(layer.biased for layer in state.layers):
        raise UnsupportedModelError(f"{who}: its attention adds a bias for each pair of places")
    handles: list[RemovableHandle] = []
    for layer in _layers(state):
        handles.append(layer.register_forward_pre_hook(pack_inputs, with_kwargs=True))
        handles.append(layer.register_forward_hook(unpack_outputs, with_kwargs=True))
    state.packs = False
    expected = _outputs(state.encoder)
    state.packs = True
    try:
        if not _close(_outputs(state.encoder), expected):
            raise UnsupportedModelError(
                f"{who}: its layers compute something else for texts in one row"
            )
    except UnsupportedModelError:
        state.packs = False
        for handle in handles:
            handle.remove()
        raise
    state.hooks += handles


def _layers(state: SparsityState) -> list[nn.Module]:
    """The encoder's layers, each once: members of a list that hold an attention."""
    modules: dict[nn.Module, None] = {}
    names = {module: name for name, module in state.encoder.named_modules()}
    for layer in state.layers:
        path = names[layer.module].split(".")
        last = max((at for at, name in enumerate(path) if name.isdecimal()), default=None)
        if last is None:
            raise UnsupportedModelError(
                f"{type(state.encoder).__name__} cannot be packed: it has no list of layers"
            )
        modules[state.encoder.get_submodule(".".join(path[: last + 1]))] = None
    return list(modules)


def _outputs(encoder: Any) -> Tensor:
    """The outputs for the real tokens of a few texts. Shape: [real tokens, width]."""
    with evaluating(encoder):
        outputs = random_outputs(encoder, _LENGTHS, "packed")
    return torch.cat([text[:length] for text, length in zip(outputs, _LENGTHS, strict=True)])


def _close(found: Tensor, expected: Tensor) -> bool:
    """Whether outputs are equal but for rounding."""
    rounding = max(_CLOSE, 8 * torch.finfo(expected.dtype).eps) * float(expected.abs().max())
    return bool((found - expected).abs().max() <= rounding)
