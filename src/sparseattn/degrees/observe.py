"""Watching a model attend densely: what calibration and probes are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.texts import Texts, state_of
from sparseattn.models.encoder import encoder_of
from sparseattn.models.masks import check_scores
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch

__all__ = ["Observation", "observe"]


@dataclass(eq=False)
class Observation:
    """A batch, and how the model attended over it, layer by layer of those that were watched.

    Attributes:
        tokens: What is known of the batch.
        output: What the model returned.
        weights: Attention, without its graph. Shape: [batch, heads, length, length] each.
        open: The pairs that a layer may attend over: real tokens, and in a model with local
            attention near ones. Shape: [batch, 1, length, length] each, bool.
        biases: Zeros that were added to the scores, with gradient if asked for, else none. Shape:
            as the weights.
    """

    tokens: TokenBatch
    output: Any = None
    weights: list[Tensor] = field(default_factory=list)
    open: list[Tensor] = field(default_factory=list)
    biases: list[Tensor] = field(default_factory=list)


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
        layers: The layers to watch, ascending; None for all.
        tokenizer: Tells which tokens are separators, where that is needed.
        gradient: Whether the output is to have a gradient with respect to the scores.

    Raises:
        UnsupportedModelError: The model's attention cannot be replaced, or takes only a boolean
            mask.
    """
    check_scores(encoder_of(texts.model).config)
    model, training = texts.model, texts.model.training
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    seen: Observation

    def compile_dense(tokens: TokenBatch) -> CompiledPlan:
        nonlocal seen
        rules = Plan(()).compile(tokens, state.heads, state.windows).layers
        seen = Observation(tokens, open=[rules[layer].dense[:, :1] for layer in watched])
        biases: dict[int, Tensor] = {}
        for layer in watched if gradient else ():
            shape = (tokens.batch, state.heads[layer], tokens.length, tokens.length)
            biases[layer] = torch.zeros(shape, device=tokens.device, requires_grad=True)
        seen.biases = list(biases.values())
        return CompiledPlan(rules, tuple(biases.get(layer) for layer in range(len(rules))))

    # The plan is there for the annotations that it needs; what is compiled is dense.
    with sparsified(model, needed, tokenizer=tokenizer):
        state = state_of(model)
        watched = range(len(state.heads)) if layers is None else layers
        state.compiler, state.watched = compile_dense, watched
        model.eval().requires_grad_(False)
        try:
            for batch in texts.batches():
                with torch.set_grad_enabled(gradient):
                    seen.output = model(**batch)  # `compile_dense` has begun a new one
                assert state.last is not None, "the model has just run"
                seen.weights = [state.last.weights[layer] for layer in watched]
                yield seen
        finally:
            state.compiler, state.watched = None, ()
            model.train(training)
            for parameter in learnable:
                parameter.requires_grad_(True)
