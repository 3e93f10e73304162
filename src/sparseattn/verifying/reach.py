"""Which tokens can change which outputs under a plan, and about how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.plan import CompiledPlan

__all__ = ["Reach"]


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
        shares: dict[int, Tensor] = {}
        for rule in compiled.layers:
            if id(rule) not in shares:
                shares[id(rule)] = _shares(rule.dense[0])
        return cls(tuple(shares[id(rule)] for rule in compiled.layers))

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

    @property
    def is_full(self) -> bool:
        """Whether every token reaches every other in every layer."""
        return all(bool((share > 0).all()) for share in self._distinct)

    @cached_property
    def _distinct(self) -> list[Tensor]:
        return list({id(share): share for share in self.layers}.values())

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

    def part_of_attention(self, place: int, difference: NDArray[np.float64]) -> float:
        """What comes from attention, as far as one layer's attention carries a token's change.

        Args:
            place: The token.
            difference: How much each output changes with it. Shape: [length].
        """
        direct = sum(share[:, place] for share in self.layers).numpy()  # type: ignore[union-attr]
        near = (direct > 0) & (difference > 0) & (np.arange(len(direct)) != place)
        if not near.any() or not difference[place]:
            return 0.5
        part = np.median(difference[near] / direct[near]) / difference[place]
        return float(np.clip(part, 1e-4, 0.5))

    def changed_by_tokens(self, tokens: Sequence[int]) -> Tensor:
        """`changed_by` where each change is one of one token. Shape: [length, tokens]."""
        share = self.layers[0]
        return self.changed_by(torch.eye(len(share), dtype=share.dtype)[:, list(tokens)])

    def sources_of(self, token: int) -> Tensor:
        """How much the last output of one token changes with each input. Shape: [length]."""
        return self.sources_of_any(torch.arange(len(self.layers[0])) == token)

    def sources_of_any(self, tokens: Tensor) -> Tensor:
        """How much some tokens' last outputs change. Shape of it and them: [length]."""
        row = tokens.to(self.layers[0].dtype)
        for share in reversed(self.layers):
            row = (row + row @ share) / 2
        return row


def _shares(allowed: Tensor) -> Tensor:
    """Uniform attention over allowed keys, mean of the heads. Shape of it: [heads, q, k], bool."""
    weights = allowed.double()
    return (weights / weights.sum(dim=-1, keepdim=True)).mean(dim=0)
