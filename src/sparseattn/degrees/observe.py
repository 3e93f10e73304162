"""Watching a model attend densely: what calibration and probes are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparseattn.backend import Call
from sparseattn.degrees.texts import Texts, state_of
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch

__all__ = ["Observation", "observe"]


@dataclass(frozen=True, eq=False)
class Observation:
    """A batch, and how the model attended over it.

    Attributes:
        tokens: What is known of the batch.
        output: What the model returned.
        weights: Attention of each layer that was watched, without its graph.
            Shape: [batch, heads, length, length] each.
        open: The pairs that each of these layers may attend over: real tokens, and in a model with
            local attention near ones. Shape: [batch, 1, length, length] each, bool.
        biases: What was added to the scores of each of these layers: zeros, with gradient if asked
            for. Shape: as the weights.
    """

    tokens: TokenBatch
    output: Any
    weights: list[Tensor]
    open: list[Tensor]
    biases: list[Tensor]


def observe(
    texts: Texts,
    needed: Plan,
    layers: Sequence[int] | None,
    tokenizer: Any = None,
    *,
    gradient: bool = False,
) -> Iterator[Observation]:
    """Runs a model over texts, densely, without dropout; afterwards it is as it was.

    Args:
        texts: The model and what it reads.
        needed: A plan that needs all that is to be known of the tokens.
        layers: The layers to watch; None for all.
        tokenizer: Tells which tokens are separators, where that is needed.
        gradient: Whether the output is to have a gradient with respect to the scores.

    Yields:
        Each batch in turn.

    Raises:
        UnsupportedModelError: The model's attention cannot be seen.
    """
    model, training = texts.model, texts.model.training
    model.eval()
    try:
        # The plan is there for the annotations that it needs; what is compiled is dense.
        with sparsified(model, needed, tokenizer=tokenizer):
            state = state_of(model)
            if state.mask_route:
                raise UnsupportedModelError(
                    f"{type(model).__name__} computes its own attention, which cannot be seen, so "
                    "what a pattern keeps of it cannot be measured"
                )
            watched = range(len(state.heads)) if layers is None else layers
            watch = _Watch(watched, state.heads, state.windows, gradient)
            state.compiler, state.observer = watch.compile, watch.observe
            try:
                for batch in texts.batches():
                    with torch.set_grad_enabled(gradient), _frozen(model):
                        output = model(**batch)
                    yield watch.take(output)
            finally:
                state.compiler = state.observer = None
    finally:
        model.train(training)


@dataclass(eq=False)
class _Watch:
    """Adds biases to the scores of some layers, and keeps their attention."""

    layers: Sequence[int]
    heads: Sequence[int]
    windows: Sequence[int | None]
    gradient: bool
    tokens: TokenBatch | None = None
    weights: dict[int, Tensor] = field(default_factory=dict)
    open: dict[int, Tensor] = field(default_factory=dict)
    biases: dict[int, Tensor] = field(default_factory=dict)

    def compile(self, tokens: TokenBatch) -> CompiledPlan:
        self.tokens = tokens
        layers = Plan(()).compile(tokens, self.heads, self.windows).layers
        if not self.gradient:
            return CompiledPlan(layers)
        for layer in self.layers:
            shape = (tokens.batch, self.heads[layer], tokens.length, tokens.length)
            self.biases[layer] = torch.zeros(shape, device=tokens.device, requires_grad=True)
        return CompiledPlan(layers, tuple(map(self.biases.get, range(len(layers)))))

    def observe(self, layer: int, call: Call) -> None:
        if layer not in self.layers:
            return
        with torch.no_grad():
            scores = (call.query @ call.key.transpose(-2, -1) * call.scale).float()
            if call.bias is not None:
                scores = scores + call.bias
            self.open[layer] = call.rule.dense[:, :1]
            closed = ~call.rule.finite
            self.weights[layer] = scores.masked_fill(closed, float("-inf")).softmax(dim=-1)

    def take(self, output: Any) -> Observation:
        """What was kept, in the order of the layers; leaves nothing behind."""
        assert self.tokens is not None, "the model has run"
        weights = [self.weights[layer] for layer in self.layers]
        pairs = [self.open[layer] for layer in self.layers]
        biases = [self.biases[layer] for layer in self.layers if layer in self.biases]
        taken = Observation(self.tokens, output, weights, pairs, biases)
        self.tokens, self.weights, self.open, self.biases = None, {}, {}, {}
        return taken


@contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """Spares the parameters their gradients."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
