"""Which tokens can change which outputs under a plan, and about how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseattn.plan import CompiledPlan
from sparseattn.verifying.judging import Array


@dataclass(frozen=True)
class Reach:
    """What a compiled plan lets one text's tokens reach.

    Attention is taken to be uniform over the allowed keys, and a fixed part of each layer's output
    to come from it; the rest is its input. That says which effects are too small to be seen. Where
    it is 0, there is none.

    Attributes:
        layers: The share of each key in each query's attention, by layer.
            Shape: [length, length] each, float64.
    """

    layers: tuple[Tensor, ...]

    @classmethod
    def of(cls, compiled: CompiledPlan) -> Reach:
        """Reads the plan compiled for a batch of one text without padding."""
        shares = {rule: _shares(rule.dense[0]) for rule in dict.fromkeys(compiled.layers)}
        return cls(tuple(shares[rule] for rule in compiled.layers))

    def joined(self, other: Reach, token: int) -> Reach:
        """What either allows, where `token` is what makes them differ.

        A query that another token's change gives other keys is reached by that token, too.
        """
        layers = []
        for mine, its in zip(self.layers, other.layers, strict=True):
            share = (mine + its) / 2
            differs = (mine != its).any(dim=1)
            share[differs, token] = share[differs, token].clamp(min=1 / len(share))
            layers.append(share)
        return Reach(tuple(layers))

    def hides_from_layers(self) -> bool:
        """Whether anything is out of reach in some layer."""
        return any(bool((share == 0).any()) for share in set(self.layers))

    def hides_from_tokens(self) -> bool:
        """Whether anything is out of reach of some token's output."""
        length = len(self.layers[0])
        return bool((self.changed_by_tokens(sorted({0, length // 2, length - 1})) == 0).any())

    def hides_from_vector(self) -> bool:
        """Whether of two tokens at the ends no output is reached by both."""
        length = len(self.layers[0])
        if length < 4:
            return False
        effects = self.changed_by_tokens([1, length - 2])
        return not bool((effects[:, 0] * effects[:, 1]).any())

    def changed_by(self, starts: Tensor, part: float = 0.5) -> Tensor:
        """How much the last layer's outputs change with some of the first layer's inputs.

        Args:
            starts: How much each input changes, by change. Shape: [length, changes].
            part: What comes from attention.

        Returns:
            0 where nothing arrives. Shape: [length, changes].
        """
        for share in self.layers:
            starts = (1 - part) * starts + part * (share @ starts)
        return starts

    def changed_by_tokens(self, tokens: Sequence[int]) -> Tensor:
        """`changed_by` where each change is one of one token. Shape: [length, tokens]."""
        share = self.layers[0]
        return self.changed_by(torch.eye(len(share), dtype=share.dtype)[:, list(tokens)])

    def sources_of(self, tokens: int | Tensor) -> Tensor:
        """How much the last outputs of a token, or of some, change with each input.

        Args:
            tokens: A token, or which ones. Shape: [length], bool.

        Returns:
            0 where nothing arrives. Shape: [length].
        """
        row = torch.zeros_like(self.layers[0][0])
        row[tokens] = 1
        for share in reversed(self.layers):
            row = (row + row @ share) / 2
        return row

    def part_of_attention(self, place: int, difference: Array) -> float:
        """What comes from attention, as far as one layer's attention carries a token's change.

        Args:
            place: The token.
            difference: How much each output changes with it. Shape: [length].
        """
        direct = torch.stack([share[:, place] for share in self.layers]).sum(dim=0).numpy()
        near = (direct > 0) & (difference > 0) & (np.arange(len(direct)) != place)
        if not near.any() or not difference[place]:
            return 0.5
        part = np.median(difference[near] / direct[near]) / difference[place]
        return float(np.clip(part, 1e-4, 0.5))


def _shares(allowed: Tensor) -> Tensor:
    """Uniform attention over allowed keys, mean of the heads. Shape of it: [heads, q, k], bool."""
    weights = allowed.double()
    return (weights / weights.sum(dim=-1, keepdim=True)).mean(dim=0)
