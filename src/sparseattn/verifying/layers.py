"""A torch model from inside: whose attention output changes with whose input, layer by layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.annotations import COLUMNS
from sparseattn.errors import PlanError
from sparseattn.models.encoder import attention_layers, encoder_of
from sparseattn.models.state import attached_state
from sparseattn.verifying.changes import Changed, Measured, at_a_time, measured
from sparseattn.verifying.judging import Array, Pairs
from sparseattn.verifying.subject import Subject
from sparseattn.verifying.texts import Text


class Inside:
    """A model's encoder and its attention layers, in the order of their calls.

    Raises:
        PlanError: They are not those of the model that the plan is for.
    """

    def __init__(self, model: Any, subject: Subject) -> None:
        self.encoder = encoder = encoder_of(model)
        state = attached_state(encoder) or subject.state
        known = state is not None and state.encoder is encoder
        self.layers = state.layers if state and known else attention_layers(encoder)
        if [layer.heads for layer in self.layers] != list(subject.heads):
            raise PlanError(
                f"{type(encoder).__name__} has other layers or heads than the model that should run"
            )

    @property
    def mixes(self) -> bool:
        """Whether a convolution carries information beside the attention."""
        kinds = (nn.Conv1d, nn.Conv2d)
        found = (each for each in self.encoder.modules() if isinstance(each, kinds))
        return any(max(each.kernel_size) > 1 for each in found)

    def token_pairs(self, changed: Changed) -> Pairs:
        """The last outputs of tokens."""
        clean = torch.empty(0)
        starts: list[Tensor] = []

        def run(texts: Sequence[Text]) -> list[Array]:
            nonlocal clean
            first, outputs = self._first_and_last(self._columns(texts))
            if texts[-1] is changed.text:
                clean = first
            else:
                starts.append((first != clean).any(dim=2)[1:])
            return list(outputs.double().cpu().numpy())

        seen = measured(run, changed.text, changed.copies)
        return changed.pairs(seen, torch.cat(starts).double().cpu().T)

    def layer_pairs(self, changed: Changed, count: int) -> list[Pairs]:
        """The attention outputs of each layer."""
        length, size = len(changed.text), at_a_time(len(changed.text))
        places = sorted({0, length - 1, *changed.text.spread(count)})
        parts: list[list[Pairs]] = [[] for _ in self.layers]
        for start in range(0, len(places), size):
            chunk = places[start : start + size]
            columns = self._columns([changed.text] * (len(chunk) + 1))
            clean = self._attention_outputs(columns, [None] * (len(chunk) + 1))
            after = self._attention_outputs(columns, [None, *chunk])
            for part, share, *runs in zip(parts, changed.reach.layers, clean, after, strict=True):
                before, other = (x.double().cpu().numpy() for x in runs)
                part.append(Measured.of(before, other).pairs(share[:, chunk].numpy(), chunk))
        return [Pairs.joined(each) for each in parts]

    def _columns(self, texts: Sequence[Text]) -> dict[str, Tensor]:
        """What the encoder takes of texts of one length."""
        names = set(inspect.signature(self.encoder.forward).parameters)
        if attached_state(self.encoder) is not None:
            names |= COLUMNS.keys()
        device = next(self.encoder.parameters()).device
        return {
            name: torch.cat([text.columns[name] for text in texts]).to(device)
            for name in texts[0].columns
            if name in names
        }

    def _first_and_last(self, columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What goes into the first attention, and the outputs. Shape: [texts, length, width].

        Some embedding layers join neighbouring tokens, which is no attention.
        """
        inputs: list[Tensor] = []

        def keep(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            values = [*args, *kwargs.values()]
            first = next(x for x in values if isinstance(x, Tensor) and x.dim() == 3)
            inputs.append(first.detach())

        handle = self.layers[0].module.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            outputs: Tensor = self.encoder(**columns)[0]
        finally:
            handle.remove()
        return inputs[0], outputs

    def _attention_outputs(
        self, columns: dict[str, Tensor], places: Sequence[int | None]
    ) -> list[Tensor]:
        """The attention outputs of all layers in one pass, each layer by itself.

        Where a copy's token is changed on its way into an attention, the output that goes on is the
        unchanged first copy's.

        Args:
            columns: Copies of one text, as many as places.
            places: The token that is changed in each copy; None for no change.

        Returns:
            Shape of each: [copies, length, width].
        """
        outputs: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            outputs.append(states.detach())
            same = states[:1].expand_as(states).clone()
            return (same, *output[1:]) if isinstance(output, tuple) else same

        handles = []
        for module in {layer.module: None for layer in self.layers}:
            change = _changing(places)
            handles.append(module.register_forward_pre_hook(change, with_kwargs=True))
            handles.append(module.register_forward_hook(keep))
        try:
            self.encoder(**columns)
        finally:
            for handle in handles:
                handle.remove()
        return outputs


def _changing(places: Sequence[int | None]) -> Callable[..., Any]:
    """A pre-hook that puts other tokens' hidden states in the places of the changed ones."""

    def changed(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 3 or not value.is_floating_point():
            return value
        if len(value) != len(places):
            return value
        states = value.clone()
        for copy, place in enumerate(places):
            if place is not None:
                states[copy, place] = _other(value[copy], place)
        return states

    def hook(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return tuple(map(changed, args)), {name: changed(x) for name, x in kwargs.items()}

    return hook


def _other(states: Tensor, place: int) -> Tensor:
    """The first states after half a text that are not those of a place. Shape: [length, width].

    Of the same text, so that runtimes which scale by the largest number of all do as before.
    """
    shifted = states.roll(-place - len(states) // 2, dims=0)
    different = (shifted != states[place]).any(dim=1)
    return shifted[int(different.long().argmax())]
