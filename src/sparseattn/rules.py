"""Mask rules: which pairs are allowed in one batch, as structure rather than as a tensor.

Patterns make rules and backends compute with them; neither knows the other. A `Rule` is a union of
parts. Every part computes its mask for any query and key indices, `allowed(q, k)`, so that a
backend can do with one tile at a time, and has its structure as fields (a radius, a list of keys),
so that a backend can do without a mask. A `LayerRule` adds what holds for every layer: padding is
never a key, a real token may always attend to itself, a padding query may attend to nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sparseattn.errors import PatternError
from sparseattn.words import counted


class Part(ABC):
    """A set of allowed (query, key) pairs."""

    @abstractmethod
    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        """Says which of the pairs q x k are allowed.

        Args:
            q: Query indices. Shape: [queries], int64.
            k: Key indices. Shape: [keys], int64.

        Returns:
            Shape: [batch or 1, heads or 1, queries, keys], bool.
        """


@dataclass(frozen=True, eq=False)
class AllPairs(Part):
    """Every pair."""

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.ones(1, 1, *q.shape, *k.shape, dtype=torch.bool, device=q.device)


@dataclass(frozen=True, eq=False)
class Band(Part):
    """Pairs at most `radius` steps of `dilation` apart: `|q - k| <= radius * dilation`.

    Attributes:
        radius: One-sided, inclusive, in tokens; an int, or one per query.
            Shape: [batch or 1, length], int64.
        dilation: Only distances divisible by it are allowed.
    """

    radius: int | Tensor
    dilation: int = 1

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        distance = (q[:, None] - k[None, :]).abs()[None]
        radius = self.radius[:, q, None] if isinstance(self.radius, Tensor) else self.radius
        near = distance <= radius * self.dilation
        return (near & (distance % self.dilation == 0) if self.dilation > 1 else near)[:, None]


@dataclass(frozen=True, eq=False)
class GlobalTokens(Part):
    """Rows and columns of global tokens: pairs of which either token is global.

    Attributes:
        tokens: True for a global token. Shape: [batch or 1, length], bool.
    """

    tokens: Tensor

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        return (self.tokens[:, q, None] | self.tokens[:, None, k])[:, None]


@dataclass(frozen=True, eq=False)
class Product(Part):
    """Pairs of a chosen query and a chosen key: rows, columns, or where both meet.

    Attributes:
        queries: True for a chosen query; None for all. Shape: [batch or 1, length], bool.
        keys: Likewise for keys.
    """

    queries: Tensor | None = None
    keys: Tensor | None = None

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        out = torch.ones(1, *q.shape, *k.shape, dtype=torch.bool, device=q.device)
        if self.queries is not None:
            out = out & self.queries[:, q, None]
        if self.keys is not None:
            out = out & self.keys[:, None, k]
        return out[:, None]


@dataclass(frozen=True, eq=False)
class SameLabel(Part):
    """Pairs with the same non-negative label: blocks, strides, sentences, words.

    Attributes:
        labels: Shape: [batch or 1, length], int64.
    """

    labels: Tensor

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        rows, columns = self.labels[:, q, None], self.labels[:, None, k]
        return ((rows == columns) & (rows >= 0))[:, None]


@dataclass(frozen=True, eq=False)
class Keys(Part):
    """A list of keys for each query.

    Attributes:
        index: Key indices, -1 for none. Shape: [batch or 1, length, degree], int64.
    """

    index: Tensor

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        index = self.index[:, q]
        span = int(k.max()) + 1 if len(k) else 0
        seen = torch.zeros(*index.shape[:2], span + 1, dtype=torch.bool, device=q.device)
        targets = torch.where((index >= 0) & (index < span), index, span)
        return seen.scatter_(2, targets, True)[:, :, k][:, None]


@dataclass(frozen=True, eq=False)
class Pairs(Part):
    """A mask as a tensor, for what has no simpler structure.

    Attributes:
        mask: Shape: [batch or 1, heads or 1, length, length], bool.
    """

    mask: Tensor

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        return self.mask[:, :, q[:, None], k[None, :]]


@dataclass(frozen=True, eq=False)
class Rule:
    """A union of parts.

    Attributes:
        parts: No part at all allows nothing.
    """

    parts: tuple[Part, ...]

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        out = torch.zeros(1, 1, *q.shape, *k.shape, dtype=torch.bool, device=q.device)
        for part in self.parts:
            out = out | part.allowed(q, k)
        return out

    def dense(self, length: int, device: torch.device | None = None) -> Tensor:
        """Every pair of a batch. Shape: [batch or 1, heads or 1, length, length], bool."""
        every = torch.arange(length, device=device)
        return self.allowed(every, every)

    @property
    def is_full(self) -> bool:
        """Whether a part allows every pair."""
        return any(isinstance(part, AllPairs) for part in self.parts)


@dataclass(frozen=True, eq=False)
class Both(Part):
    """Pairs that both rules allow."""

    left: Rule
    right: Rule

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        return self.left.allowed(q, k) & self.right.allowed(q, k)


@dataclass(frozen=True, eq=False)
class Except(Part):
    """Pairs that the left rule allows and the right one does not."""

    left: Rule
    right: Rule

    def allowed(self, q: Tensor, k: Tensor) -> Tensor:
        return self.left.allowed(q, k) & ~self.right.allowed(q, k)


#: Tensors that have an entry a token. Shape: [batch or 1, length, ...].
_PER_TOKEN: dict[type[Part], tuple[str, ...]] = {
    Band: ("radius",),
    GlobalTokens: ("tokens",),
    Product: ("queries", "keys"),
    SameLabel: ("labels",),
    Keys: ("index",),
}


@dataclass(frozen=True, eq=False)
class LayerRule:
    """What one attention layer computes for one batch.

    Attributes:
        groups: Heads and the rule they share. The heads of all groups are a partition of
            `range(heads)`.
        heads: Number of query heads.
        valid: True for a real token. Shape: [batch, length], bool.
        padded: Whether any token is padding (known without reading the device).

    Raises:
        PatternError: A tensor of the rule does not fit the batch, or a listed key is beyond its
            length; kernels would read and write there. On a GPU such a key ends the process, since
            asking for it first would make each forward pass wait.
    """

    groups: tuple[tuple[tuple[int, ...], Rule], ...]
    heads: int
    valid: Tensor
    padded: bool = True

    def __post_init__(self) -> None:
        for _, rule in self.groups:
            self._check(rule)

    def _check(self, rule: Rule) -> None:
        for part in rule.parts:
            if isinstance(part, Both | Except):
                self._check(part.left)
                self._check(part.right)
            for field in _PER_TOKEN.get(type(part), ()):
                tensor = getattr(part, field)
                if isinstance(tensor, Tensor) and (
                    tensor.shape[0] not in (1, len(self.valid)) or tensor.shape[1] != self.length
                ):
                    raise PatternError(
                        f"{type(part).__name__}.{field} has shape {list(tensor.shape)}; a batch of "
                        f"{counted(len(self.valid), 'text')} of {self.length} tokens needs [1 or "
                        f"{len(self.valid)}, {self.length}, ...]"
                    )
            if isinstance(part, Keys) and part.index.numel():
                self._check_keys(part.index)

    def _check_keys(self, index: Tensor) -> None:
        allowed = f"choose from: 0 to {self.length - 1}, or -1 for none"
        if index.is_cuda:  # to read the highest here would wait for the GPU
            message = f"a key is beyond the {self.length} tokens of the batch; {allowed}"
            torch._assert_async((index < self.length).all(), message)
        elif (highest := int(index.max())) >= self.length:
            raise PatternError(
                f"key {highest} is beyond the {self.length} tokens of the batch; {allowed}"
            )

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return self.valid.shape[1]

    @cached_property
    def is_full(self) -> bool:
        """Whether every pair of real tokens is allowed in every head."""
        return all(rule.is_full for _, rule in self.groups)

    def within(self, radius: int) -> LayerRule:
        """The same rule, cut to pairs at most `radius` tokens apart."""
        window = Rule((Band(radius),))
        groups = tuple(
            (heads, window if rule.is_full else Rule((Both(rule, window),)))
            for heads, rule in self.groups
        )
        return replace(self, groups=groups)

    def allowed(self, q: Tensor, k: Tensor, heads: Sequence[int] | None = None) -> Tensor:
        """Says which of the pairs q x k are allowed, the invariants included.

        Args:
            q: Query indices. Shape: [queries], int64.
            k: Key indices. Shape: [keys], int64.
            heads: The heads; all by default.

        Returns:
            Shape: [batch, heads or 1, queries, keys], bool.
        """
        chosen = range(self.heads) if heads is None else heads
        rules = [rule for members, rule in self.groups if not set(chosen).isdisjoint(members)]
        if len(rules) == 1:
            out = rules[0].allowed(q, k)
            if heads is not None and out.shape[1] > 1:
                out = out[:, list(heads)]
        else:
            out = self._per_head(q, k, chosen)
        if not self.is_full:
            out = out | (q[:, None] == k[None, :])
        if not self.padded:
            return out.expand(len(self.valid), -1, -1, -1)
        return out & self.valid[:, None, q, None] & self.valid[:, None, None, k]

    def _per_head(self, q: Tensor, k: Tensor, heads: Sequence[int]) -> Tensor:
        masks: dict[int, Tensor] = {}
        for members, rule in self.groups:
            if chosen := [head for head in members if head in heads]:
                mask = rule.allowed(q, k)
                for head in chosen:
                    masks[head] = mask[:, head if mask.shape[1] > 1 else 0]
        shaped = torch.broadcast_tensors(*(masks[h] for h in heads))  # type: ignore[no-untyped-call]
        return torch.stack(shaped, dim=1)

    @cached_property
    def dense(self) -> Tensor:
        """Every pair. Shape: [batch, heads or 1, length, length], bool."""
        every = torch.arange(self.length, device=self.valid.device)
        return self.allowed(every, every)

    @cached_property
    def finite(self) -> Tensor:
        """`dense`, with the rows of padding queries opened.

        For kernels that answer an empty row with NaN; the caller zeroes those rows afterwards.
        Shape: [batch, heads or 1, length, length], bool.
        """
        return self.dense | ~self.valid[:, None, :, None] if self.padded else self.dense
