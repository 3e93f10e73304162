"""Watching a model attend densely: what calibration and probes are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.texts import Texts, state_of
from sparseattn.models.encoder import evaluating
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch


@dataclass(eq=False)
class Observation:
    """A batch, and how the model attended over it, layer by layer of those that were watched.

    Attributes:
        tokens: What is known of the batch.
        weights: Attention. Shape: [batch, heads, length, length] each.
        open: The pairs that a layer may attend over: real tokens, and in a model with local
            attention near ones. Shape: [batch, 1, length, length] each, bool.
    """

    tokens: TokenBatch
    weights: list[Tensor] = field(default_factory=list)
    open: list[Tensor] = field(default_factory=list)


def observe(
    texts: Texts,
    needed: Plan,
    layers: Sequence[int] | None,
    tokenizer: Any = None,
) -> Iterator[Observation]:
    """Runs a model over texts, densely, without dropout; afterwards it is as it was.

    Args:
        texts: The model and what it reads.
        needed: A plan that needs all that is to be known of the tokens.
        layers: The layers to watch, ascending; None for all.
        tokenizer: Tells which tokens are separators, where that is needed.

    Raises:
        UnsupportedModelError: The model's attention cannot be replaced.
    """
    model = texts.model
    seen: Observation

    def compile_dense(tokens: TokenBatch) -> CompiledPlan:
        nonlocal seen
        compiled = Plan(()).compile(tokens, state.heads, state.windows)
        seen = Observation(tokens, open=[compiled.layers[at].dense[:, :1] for at in watched])
        return compiled

    # The plan is there for the annotations that it needs; what is compiled is dense.
    with sparsified(model, needed, tokenizer=tokenizer), evaluating(model):
        state = state_of(model)
        watched = range(len(state.heads)) if layers is None else layers
        state.compiler, state.watched = compile_dense, watched
        try:
            for batch in texts.batches():
                with torch.no_grad():
                    model(**batch)  # `compile_dense` begins another observation
                assert state.last is not None, "the model has just run"
                seen.weights = [state.last.weights(layer) for layer in watched]
                yield seen
        finally:
            state.compiler, state.watched = None, ()
