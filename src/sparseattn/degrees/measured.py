"""The sparsity that a plan has on given texts, counted pair by pair from its masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.plan import Plan
from sparseattn.rules import LayerRule
from sparseattn.tokens import TokenBatch

__all__ = ["Realised", "told"]


@dataclass(frozen=True, eq=False)
class Realised:
    """What a plan allows in each of some texts.

    Attributes:
        lengths: Real tokens of each text. Shape: [texts], int64.
        allowed: Allowed pairs, summed over layers and heads. Shape: [texts], int64.
        valid: Pairs of real tokens, likewise. Shape: [texts], int64.
    """

    lengths: Tensor
    allowed: Tensor
    valid: Tensor

    @classmethod
    def of(
        cls,
        plan: Plan,
        batches: Iterable[TokenBatch],
        heads: Sequence[int],
        windows: Sequence[int | None] | None = None,
    ) -> Realised:
        """Counts the pairs of each pattern of the plan once, whatever heads share it.

        Args:
            plan: The plan.
            batches: The texts.
            heads: Heads of each layer of the model.
            windows: A radius that each layer never exceeds.
        """
        limits = windows or [None] * len(heads)
        times: Counter[tuple[Pattern, int | None, int]] = Counter()
        for layer, groups in enumerate(plan.resolve(heads)):
            for members, pattern in groups:
                where = layer if pattern.varies_by_layer else 0
                times[pattern, limits[layer], where] += len(members)
        lengths, allowed = [], []
        for tokens in batches:
            pairs = torch.zeros(tokens.batch, dtype=torch.long)
            for (pattern, limit, layer), many in times.items():
                rule = LayerRule((((0,), pattern.rule(tokens, layer)),), 1, tokens.valid)
                cut = rule if limit is None else rule.within(limit)
                pairs += many * cut.dense.sum(dim=(1, 2, 3)).cpu()
            allowed.append(pairs)
            lengths.append(tokens.lengths.cpu())
        length = torch.cat(lengths)
        return cls(length, torch.cat(allowed), length**2 * sum(heads))

    @property
    def sparsity(self) -> float:
        """`1 - allowed / valid`, both summed over the texts."""
        return 1 - float(self.allowed.sum()) / float(self.valid.sum())

    def by_length(self, edges: Sequence[int] = (16, 32, 64, 128, 256, 512)) -> dict[str, float]:
        """The sparsity of the texts of each length, for lengths that occur.

        Args:
            edges: Upper ends of the buckets, in tokens, inclusive.
        """
        found = {}
        last = int(self.lengths.max())
        for low, high in zip((0, *edges), (*edges, max(last, edges[-1] + 1)), strict=True):
            inside = (self.lengths > low) & (self.lengths <= high)
            if inside.any():
                share = float(self.allowed[inside].sum()) / float(self.valid[inside].sum())
                found[f"{low + 1}-{high}"] = 1 - share
        return found


def told(
    stated: float, sparsity: float, windows: float, by_length: dict[str, float], over: str
) -> list[str]:
    """Lines that tell a user what came of a sparsity.

    Args:
        stated: What was asked for.
        sparsity: What the plan has.
        windows: That of its windows alone.
        by_length: See `Realised.by_length`.
        over: What these were counted over, such as `872 held-out texts`.
    """
    buckets = ", ".join(f"{lengths}: {share:.3f}" for lengths, share in by_length.items())
    return [
        f"stated sparsity {stated:.3f}, realised {sparsity:.3f} (windows alone {windows:.3f}) "
        f"over {over}",
        f"by length in tokens: {buckets}",
    ]
