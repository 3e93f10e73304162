"""How many pairs a plan allows over the whole evaluation data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from sparseattn.backend import backend
from sparseattn.errors import PlanError, UnsupportedModelError
from sparseattn.models.describe import describe
from sparseattn.models.encoder import encoder_of
from sparseattn.models.sparsify import sparsified
from sparseattn.models.state import attached_state
from sparseattn.rules import LayerRule
from sparseattn.tasks.base import Prepared

__all__ = ["Counted", "count", "count_dense"]


@dataclass
class Counted:
    """Pairs of real tokens, summed over inputs and heads, a layer.

    Attributes:
        allowed: Those that the plan allows.
        valid: All of them.
        queries: Queries, a query counting once a head.
        computed: Score entries that the backend computes.
    """

    allowed: list[int] = field(default_factory=list)
    valid: list[int] = field(default_factory=list)
    queries: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)

    @property
    def sparsity(self) -> float:
        """`1 - allowed / valid`, in [0, 1]."""
        return 1 - sum(self.allowed) / sum(self.valid)

    @property
    def mean_degree(self) -> float:
        """Keys a query may attend to, averaged over queries, layers and heads."""
        return sum(self.allowed) / sum(self.queries)

    @property
    def block_density(self) -> float:
        """Score entries computed as a share of the valid pairs; above 1 with padding."""
        return sum(self.computed) / sum(self.valid)

    @property
    def by_layer(self) -> list[float]:
        """The sparsity of each layer."""
        return [1 - a / v for a, v in zip(self.allowed, self.valid, strict=True)]

    def add(self, layer: int, numbers: tuple[int, int, int, int]) -> None:
        """Adds what one batch has in one layer."""
        for total, number in zip(
            (self.allowed, self.valid, self.queries, self.computed), numbers, strict=True
        ):
            total.extend([0] * (layer + 1 - len(total)))
            total[layer] += number


def count(model: Any, prepared: Prepared, batch_size: int) -> Counted:
    """Counts the plan on a model over all evaluation inputs.

    Args:
        model: A sparsified model.
        prepared: The data.
        batch_size: Inputs a batch, as the model is run; it decides about padding.

    Raises:
        PlanError: The model carries no plan.
    """
    state = attached_state(model)
    if state is None:
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to count")
    embedding = getattr(encoder_of(model).get_input_embeddings(), "weight", None)
    total = Counted()
    names: list[str] = []
    for batch in _batches(prepared, batch_size):
        batch = {name: column.to(model.device) for name, column in batch.items()}
        if not names:
            names = [layer.backend for layer in describe(model, batch).layers]
        tokens = state.record.tokens(batch, embedding)
        seen: dict[int, tuple[int, int, int, int]] = {}
        for index, rule in enumerate(state.compile(tokens).layers):
            if id(rule) not in seen:
                seen[id(rule)] = _numbers(rule, names[index])
            total.add(index, seen[id(rule)])
    return total


def count_dense(model: Any, prepared: Prepared, batch_size: int) -> Counted | None:
    """Counts a model that is left as it is; None if its layers cannot be told apart."""
    try:
        with sparsified(model, "full()"):
            return count(model, prepared, batch_size)
    except UnsupportedModelError:
        return None


def _numbers(rule: LayerRule, name: str) -> tuple[int, int, int, int]:
    lengths = rule.valid.sum(dim=1)
    valid = int((lengths**2).sum()) * rule.heads
    if rule.is_full:
        allowed = valid
    else:
        dense = rule.dense
        allowed = int(dense.sum()) * (rule.heads // dense.shape[1])
    return allowed, valid, int(lengths.sum()) * rule.heads, backend(name).computed(rule)


def _batches(prepared: Prepared, size: int) -> Iterator[dict[str, torch.Tensor]]:
    data = prepared.evaluation
    for start in range(0, len(data), size):
        places = range(start, min(start + size, len(data)))
        yield prepared.collator(data.__getitems__(list(places)))
