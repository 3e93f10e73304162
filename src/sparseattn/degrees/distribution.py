"""Distributions of radii, and the mask of real numbers that they add to the scores.

Windows are nested, so the chance that a token at distance d is within a window drawn from p is the
survival function S(d) = sum of p_k over r_k >= d. Attention scores get + log S(|q - k|).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from sparseattn.degrees.candidates import Candidates
from sparseattn.errors import PlanError
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch

__all__ = ["Degrees", "log_survival", "soft_mask", "toeplitz"]


def log_survival(log_chances: Tensor) -> Tensor:
    """The log of the chance that a radius of at least each entry is drawn.

    In log space, so that a chance of e^-200 is as good as any and its gradient stays finite.
    Shape: [..., entries], ascending radii; the first result is 0.
    """
    return log_chances.flip(-1).logcumsumexp(-1).flip(-1)


def toeplitz(values: Tensor) -> Tensor:
    """Spreads a value a distance over all pairs: element [q, k] is `values[|q - k|]`.

    A view of a doubled row, whose backward is far cheaper than that of an index.
    Shape: [..., length] to [..., length, length].
    """
    both = torch.cat([values.flip(-1)[..., :-1], values], dim=-1)
    return both.unfold(-1, values.shape[-1], 1).flip(-2)


def soft_mask(log_chances: Tensor, candidates: Candidates, tokens: TokenBatch) -> Tensor:
    """What a distribution of radii adds to the scores of a layer.

    Rows and columns of global tokens get 0, whatever the distribution. Pairs beyond the largest
    radius get the value at that radius: the layer's rule disallows them.
    Shape: [heads or 1, entries] to [batch or 1, heads or 1, length, length].
    """
    survival = log_survival(log_chances)
    distance = torch.arange(tokens.length, device=tokens.device)
    radii = candidates.radii(tokens)
    # The first entry that reaches so far; with equal radii in a short text, the first of them.
    entry = torch.searchsorted(radii, distance.expand(len(radii), -1).contiguous())
    bias = toeplitz(survival[:, entry.clamp(max=len(candidates) - 1)].transpose(0, 1))
    chosen = candidates.global_mask(tokens)
    if bool((chosen == chosen[:1]).all()):
        chosen = chosen[:1]
    either = chosen[:, None, :, None] | chosen[:, None, None, :]
    return bias.masked_fill(either, 0.0)


class Degrees(nn.Module):
    """A distribution of radii for each head, or one for each layer.

    Args:
        candidates: The radii.
        heads: Heads of each layer of the model.
        windows: A radius that each layer never exceeds; None for no limit.
        dense: Layers that stay dense.
        granularity: `head`: each head has a distribution of its own; `layer`: each layer has.

    Raises:
        PlanError: No layer is left to learn, or the layers differ in their heads.

    Attributes:
        theta: Logits at temperature 1. Shape: [learned layers, heads or 1, entries].
        temperature: Chances are `softmax(theta / temperature)`.
    """

    def __init__(
        self,
        candidates: Candidates,
        heads: Sequence[int],
        windows: Sequence[int | None],
        dense: Sequence[int] = (),
        granularity: str = "head",
    ) -> None:
        super().__init__()
        self.candidates, self.heads, self.windows = candidates, tuple(heads), tuple(windows)
        self.layers = [layer for layer in range(len(heads)) if layer not in dense]
        if len({heads[layer] for layer in self.layers}) != 1:
            raise PlanError(f"degrees need layers with equally many heads; got {list(heads)}")
        groups = 1 if granularity == "layer" else heads[self.layers[0]]
        self.theta = nn.Parameter(torch.zeros(len(self.layers), groups, len(candidates)))
        self.temperature = 1.0

    def log_chances(self) -> Tensor:
        """Shape: [learned layers, heads or 1, entries]."""
        return (self.theta / self.temperature).log_softmax(dim=-1)

    def chances(self) -> Tensor:
        """Shape: [learned layers, heads or 1, entries]; sums to 1 over the entries."""
        return self.log_chances().exp()

    @cached_property
    def widest(self) -> Plan:
        """The plan of all pairs that some radius allows."""
        return Plan.of({layer: self.candidates.pattern(-1) for layer in self.layers})

    def soft_plan(self, tokens: TokenBatch) -> CompiledPlan:
        """The soft mask of a batch, in place of a plan."""
        compiled = self.widest.compile(tokens, self.heads, self.windows)
        biases: list[Tensor | None] = [None] * len(self.heads)
        for chances, layer in zip(self.log_chances(), self.layers, strict=True):
            biases[layer] = soft_mask(chances, self.candidates, tokens)
        return CompiledPlan(compiled.layers, tuple(biases))
