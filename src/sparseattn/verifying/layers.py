"""A torch model's layers, one by one: whose attention output changes with whose input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.models.encoder import Attention

__all__ = ["Watched", "attention_outputs", "first_inputs", "settled"]


@dataclass(eq=False)
class Watched:
    """Hooks of the attention modules of a batch of copies of one text.

    Each layer is looked at by itself: where a copy's token is changed on its way into an attention,
    the output that goes on is the unchanged first copy's.

    Attributes:
        places: The token that is changed in each copy; None for no change.
        outputs: The attention output of each layer. Shape: [copies, length, width].
    """

    places: Sequence[int | None]
    outputs: list[Tensor] = field(default_factory=list)

    def change(self, _module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook: puts other tokens' hidden states in the places of the changed ones."""
        args = tuple(map(self._changed, args))
        return args, {name: self._changed(value) for name, value in kwargs.items()}

    def _changed(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 3 or not value.is_floating_point():
            return value
        if len(value) != len(self.places):
            return value
        changed = value.clone()
        for copy, place in enumerate(self.places):
            if place is not None:
                changed[copy, place] = _other(value[copy], place)
        return changed

    def keep(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Hook: keeps the output, and hands on the unchanged."""
        states = output[0] if isinstance(output, tuple) else output
        self.outputs.append(states.detach())
        same = states[:1].expand_as(states).clone()
        return (same, *output[1:]) if isinstance(output, tuple) else same


def _other(states: Tensor, place: int) -> Tensor:
    """The first states after half a text that are not those of a place. Shape: [length, width].

    Of the same text, so that runtimes which scale by the largest number of all do as before.
    """
    shifted = states.roll(-place - len(states) // 2, dims=0)
    different = (shifted != states[place]).any(dim=1)
    return shifted[int(different.long().argmax())]


def attention_outputs(
    encoder: Any,
    layers: Sequence[Attention],
    columns: dict[str, Tensor],
    places: Sequence[int | None],
) -> list[Tensor]:
    """The attention outputs of all layers in one pass; see `Watched`.

    Args:
        encoder: What to run.
        layers: Its attention layers.
        columns: Copies of one text, as many as places; the first is not to be changed.
        places: The token that is changed in each copy.
    """
    watched = Watched(places)
    handles = []
    for module in {layer.module: None for layer in layers}:
        handles.append(module.register_forward_pre_hook(watched.change, with_kwargs=True))
        handles.append(module.register_forward_hook(watched.keep))
    try:
        encoder(**columns)
    finally:
        for handle in handles:
            handle.remove()
    return watched.outputs


def first_inputs(
    encoder: Any, layers: Sequence[Attention], columns: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """What goes into the first attention, and the encoder's outputs. Shape: [texts, length, width].

    Some embedding layers join neighbouring tokens, which is no attention.
    """
    inputs: list[Tensor] = []

    def keep(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        inputs.append(next(x for x in values if isinstance(x, Tensor) and x.dim() == 3).detach())

    handle = layers[0].module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        outputs: Tensor = encoder(**columns)[0]
    finally:
        handle.remove()
    return inputs[0], outputs


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards as before."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before.items():
            module.training = training
