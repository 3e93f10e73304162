"""The lists of any rule, by asking it for a block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from sparseattn.backends.kernels.tiles.lists import Lists, bits_of, joined, packed, tiled
from sparseattn.rules import Band, Both, Except, GlobalTokens, LayerRule, Rule, SameLabel

__all__ = ["of_blocks"]

#: Pairs that are asked for at a time.
_ASKED = 1 << 22


def of_blocks(
    shared: Rule, heads: tuple[int, ...], rule: LayerRule, size: int
) -> Iterator[tuple[tuple[int, ...], Lists]]:
    """The lists of any rule, asking for a block of queries at a time.

    Yields:
        Heads that share lists (each head its own where the rule differs), and the lists.
    """
    order = _order(shared, rule)
    made: list[list[Lists]] = []
    asked = rule.length
    step = max(1, _ASKED // (len(rule.valid) * len(heads) * asked * size)) * size
    reach = _reach(shared, rule.length)
    for start in range(0, len(order), step):
        block = order[start : start + step]
        low, high = max(0, int(block.min()) - reach), int(block.max()) + reach + 1
        keys = torch.arange(low, min(rule.length, high), device=order.device)
        made.append(_asked(shared, heads, rule, (block, keys, size)))
    for index, lists in enumerate(zip(*made, strict=True)):
        yield (heads if len(made[0]) == 1 else heads[index : index + 1]), reduce(joined, lists)


def _asked(
    shared: Rule, heads: tuple[int, ...], rule: LayerRule, block: tuple[Tensor, Tensor, int]
) -> list[Lists]:
    """Lists of a block of queries; several where the rule differs between heads."""
    order, keys, size = block
    allowed = shared.allowed(order, keys) | (order[:, None] == keys)
    if rule.padded:
        allowed = allowed & rule.valid[:, None, order, None] & rule.valid[:, None, None, keys]
    if allowed.shape[1] > 1:
        allowed = allowed[:, list(heads)]
    rows, kinds = allowed.shape[:2]
    queries = tiled(order, rule, rows, size)
    tiles = queries.shape[1]
    padded = torch.nn.functional.pad(allowed, (0, 0, 0, tiles * size - len(order)))
    bits = bits_of(padded.view(rows, kinds, tiles, size, len(keys)), 3)
    keys = keys.expand(rows, tiles, -1)
    return [packed(queries, keys, bits[:, kind]) for kind in range(kinds)]


def _order(shared: Rule, rule: LayerRule) -> Tensor:
    """The order of queries in which neighbours want the same keys."""
    if shared.parts and all(isinstance(part, SameLabel | GlobalTokens) for part in shared.parts):
        labels = next((p.labels for p in shared.parts if isinstance(p, SameLabel)), None)
        if labels is not None:
            return torch.argsort(labels[0], stable=True)
    return torch.arange(rule.length, device=rule.valid.device)


def _reach(shared: Rule, length: int) -> int:
    """The largest distance at which a rule can allow a pair."""
    return max((_part_reach(part, length) for part in shared.parts), default=0)


def _part_reach(part: object, length: int) -> int:
    if isinstance(part, Band):
        widest = int(part.radius.max()) if isinstance(part.radius, Tensor) else part.radius
        return min(widest * part.dilation, length)
    if isinstance(part, Both):
        return min(_reach(part.left, length), _reach(part.right, length))
    return _reach(part.left, length) if isinstance(part, Except) else length
