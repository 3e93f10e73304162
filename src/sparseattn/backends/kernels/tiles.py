"""Which keys each tile of queries needs: a layer's rule as lists.

A tile is a few queries; its list holds every key that any of them may attend to, with one bit a
query. Each pair stands in exactly one list, and a query in exactly one tile, so that no partial
results have to be merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sparseattn.backends.kernels.key_lists import Lists, banded, of_band, of_rule
from sparseattn.backends.kernels.rule_cache import RuleCache
from sparseattn.rules import LayerRule

__all__ = ["Tiles", "tiles_of"]


@dataclass(frozen=True, eq=False)
class Tiles:
    """The lists of one layer.

    Attributes:
        length: Padded length in tokens.
        queries: The queries of each tile, -1 for none. Shape: [tiles, size], int32.
        starts: Where the list of a tile starts. Shape: [tiles], int64.
        counts: How long it is. Shape: [tiles], int64.
        keys: The lists. Shape: [entries], int32.
        bits: Which queries of the tile may attend to each. Shape: [entries], int32 for tiles of 16,
            else int64.
        first: First tile of each group of heads and text, and the one after its last.
            Shape: [groups, texts, 2], int64.
        group: The group of each head. Shape: [heads], int64.
    """

    length: int
    queries: Tensor
    starts: Tensor
    counts: Tensor
    keys: Tensor
    bits: Tensor
    first: Tensor
    group: Tensor

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.first.shape[1]

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.group)

    @cached_property
    def longest(self) -> int:
        """Entries of the longest list."""
        return int(self.counts.max()) if len(self.counts) else 0

    @cached_property
    def most(self) -> int:
        """The most tiles that a head has in a text."""
        return int((self.first[..., 1] - self.first[..., 0]).max())

    @cached_property
    def entries(self) -> Tensor:
        """Entries of all lists of a group and text. Shape: [groups, texts], int64."""
        sums = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])
        return sums[self.first[..., 1]] - sums[self.first[..., 0]]

    @cached_property
    def partial(self) -> bool:
        """Whether some rows have no query: padding, whose results are zero."""
        spans = set(map(tuple, self.first.flatten(0, 1).tolist()))
        return any(int((self.queries[a:b] >= 0).sum()) < self.length for a, b in spans)

    @property
    def computed(self) -> int:
        """Score entries computed, over texts and heads."""
        return int(self.entries[self.group].sum()) * self.queries.shape[1]

    def shares(self, threads: int) -> tuple[Tensor, Tensor]:
        """Divides the heads of a text into shares as equal in work as whole heads can be.

        Returns:
            The heads, share by share, and where each share starts (and the last one ends).
        """
        if threads not in self._shares:
            self._shares[threads] = self._divide(threads)
        return self._shares[threads]

    @cached_property
    def _shares(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def _divide(self, threads: int) -> tuple[Tensor, Tensor]:
        def is_even(shares: int) -> bool:  # all threads finish at about the same time
            return shares % threads == 0 or shares >= 4 * threads

        counts = range(1, self.heads)
        count = next((n for n in counts if is_even(self.texts * n)), self.heads)
        work = self.entries.sum(1)[self.group].tolist()
        shares: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for head in sorted(range(self.heads), key=lambda head: -work[head]):
            least = loads.index(min(loads))
            shares[least].append(head)
            loads[least] += max(1, work[head])
        bounds = list(accumulate(map(len, shares), initial=0))
        return torch.tensor([head for share in shares for head in share]), torch.tensor(bounds)


#: The lists of a rule by size, and those of equal rules of other batches, up to 8 MB each.
_TILES: WeakKeyDictionary[LayerRule, dict[int, Tiles]] = WeakKeyDictionary()
_CACHE: RuleCache[Tiles] = RuleCache(lambda tiles: len(tiles.keys), 1 << 20, read_gpu=True)


def tiles_of(rule: LayerRule, size: int) -> Tiles:
    """The lists of a rule for tiles of `size` queries, at most 64; built once for equal rules."""
    by_size = _TILES.setdefault(rule, {})
    if size not in by_size:
        by_size[size] = _CACHE.get(rule, size, partial(_build, rule, size))
    return by_size[size]


def _build(rule: LayerRule, size: int) -> Tiles:
    texts, device = len(rule.valid), rule.valid.device
    group = torch.zeros(rule.heads, dtype=torch.int64, device=device)
    pieces: list[Lists] = []
    first: list[Tensor] = []
    tiles = entries = 0
    for index, (heads, lists) in enumerate(_lists(rule, size)):
        group[list(heads)] = index
        copies, count = lists.counts.shape
        begin = torch.arange(texts, device=device) % copies * count + tiles
        first.append(torch.stack([begin, begin + count], dim=1))
        lists.starts.add_(entries)
        tiles, entries = tiles + copies * count, entries + len(lists.keys)
        pieces.append(lists)
    return Tiles(
        rule.length,
        torch.cat([p.queries.flatten(0, 1) for p in pieces]).int(),
        torch.cat([p.starts.flatten() for p in pieces]),
        torch.cat([p.counts.flatten() for p in pieces]),
        torch.cat([p.keys for p in pieces]).int(),
        torch.cat([p.bits for p in pieces]).to(torch.int32 if size <= 16 else torch.int64),
        torch.stack(first),
        group,
    )


def _lists(rule: LayerRule, size: int) -> Iterator[tuple[tuple[int, ...], Lists]]:
    """Heads that share lists, and the lists."""
    for heads, shared in rule.groups:
        if (band := banded(shared)) is not None:
            yield heads, of_band(band, rule, size)
        else:
            yield from of_rule(shared, heads, rule, size)
