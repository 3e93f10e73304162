"""Which keys each tile of queries needs: a layer's rule as lists.

A tile is a few queries; its list holds every key that any of them may attend to, with one bit a
query. For the kernel, keys that one of them has to itself stand in a second list, as pairs. Each
pair stands in exactly one list, and a query in exactly one tile, so that no partial results have to
be merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sparseattn.backends.kernels.key_lists import banded, of_band, of_rule
from sparseattn.backends.kernels.ragged import Lists, Ragged
from sparseattn.backends.kernels.rule_cache import RuleCache
from sparseattn.rules import LayerRule, Rule

#: Score entries of shared keys that take as long as a scattered pair (measured: docs/log.md).
PAIR = 6


@dataclass(frozen=True, eq=False)
class Tiles:
    """The lists of one layer.

    Attributes:
        length: Padded length in tokens.
        queries: The queries of each tile, -1 for none. Shape: [tiles, size], int32.
        shared: Keys, and as marks a bit for each query of the tile that may attend to them.
            Shape: [tiles], [entries], int32; bits of tiles of more than 16 int64.
        scattered: Keys of single queries; see `Lists`. Shape: [tiles], [pairs], int32.
        first: First tile of each group of heads and text, and the one after its last.
            Shape: [groups, texts, 2], int64.
        group: The group of each head. Shape: [heads], int64.
        padded: Whether any token is padding: a row that has no query, and results of zero.
    """

    length: int
    queries: Tensor
    shared: Ragged
    scattered: Ragged
    first: Tensor
    group: Tensor
    padded: bool

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
        return int(self.shared.counts.max()) if len(self.shared.counts) else 0

    @cached_property
    def pair_rows(self) -> int:
        """The most rows that the scattered pairs of a tile take: the keys of one query."""
        places = self.scattered.marks
        return int(places.max()) // self.queries.shape[1] + 1 if len(places) else 0

    @cached_property
    def most_tiles(self) -> int:
        """The most tiles that a head has in a text."""
        return int((self.first[..., 1] - self.first[..., 0]).max())

    def amounts(self, pair: float) -> Tensor:
        """Score entries of a group and text; a scattered pair counts as `pair` of them.

        Shape: [groups, texts], float64.
        """
        counts = self.shared.counts * self.queries.shape[1] + self.scattered.counts * pair
        sums = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).double()
        return sums[self.first[..., 1]] - sums[self.first[..., 0]]

    @property
    def computed(self) -> int:
        """Score entries computed, over texts and heads."""
        return int(self.amounts(1)[self.group].sum())

    @property
    def work(self) -> float:
        """The score entries of shared keys that would take as long."""
        return float(self.amounts(PAIR)[self.group].sum())

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
        work = self.amounts(PAIR).sum(1)[self.group].tolist()
        shares: list[list[int]] = [[] for _ in range(count)]
        loads = [0] * count
        for head in sorted(range(self.heads), key=lambda head: -work[head]):
            least = loads.index(min(loads))
            shares[least].append(head)
            loads[least] += max(1, work[head])
        bounds = list(accumulate(map(len, shares), initial=0))
        return torch.tensor([head for share in shares for head in share]), torch.tensor(bounds)


_TILES: RuleCache[Tiles] = RuleCache(
    lambda tiles: len(tiles.shared.keys) + len(tiles.scattered.keys), read_gpu=True
)
#: The lists of windows with global tokens and listed keys, which heads of several layers may share,
#: and the real tokens that they are for.
_LISTS: WeakKeyDictionary[Rule, dict[tuple[int, bool], tuple[Tensor, Lists]]] = WeakKeyDictionary()


def tiles_of(rule: LayerRule, size: int, scatter: bool = False) -> Tiles:
    """The lists of a rule; built once for equal rules.

    Args:
        rule: The rule.
        size: Queries a tile, at most 64.
        scatter: Whether keys of single queries of a tile are listed as pairs; of windows and global
            tokens alone none is.
    """
    return _TILES.get(rule, (size, scatter), partial(_build, rule, size, scatter))


def _build(rule: LayerRule, size: int, scatter: bool) -> Tiles:
    texts, device = len(rule.valid), rule.valid.device
    group = torch.zeros(rule.heads, dtype=torch.int64, device=device)
    pieces: list[Lists] = []
    first: list[Tensor] = []
    tiles = 0
    for index, (heads, lists) in enumerate(_lists(rule, size, scatter)):
        group[list(heads)] = index
        copies, count = lists.queries.shape[:2]
        begin = torch.arange(texts, device=device) % copies * count + tiles
        first.append(torch.stack([begin, begin + count], dim=1))
        tiles += copies * count
        pieces.append(lists)
    return Tiles(
        rule.length,
        torch.cat([p.queries.flatten(0, 1) for p in pieces]).int(),
        Ragged.flat([p.shared for p in pieces], torch.int32 if size <= 16 else torch.int64),
        Ragged.flat([p.scattered for p in pieces], torch.int32),
        torch.stack(first),
        group,
        rule.padded,
    )


def _lists(rule: LayerRule, size: int, scatter: bool) -> Iterator[tuple[tuple[int, ...], Lists]]:
    """Heads that share lists, and the lists."""
    for heads, shared in rule.groups:
        if (band := banded(shared)) is None:
            yield from of_rule(shared, heads, rule, size, scatter)
            continue
        made, key = _LISTS.setdefault(shared, {}), (size, scatter)
        if key not in made or made[key][0] is not rule.valid:
            made[key] = rule.valid, of_band(band, rule, size, scatter)
        yield heads, made[key][1]
