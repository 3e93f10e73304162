"""Lists of keys for tiles of queries: of windows by arithmetic, of any rule by its mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseattn.backends.kernels.ragged import Lists, merged, pack
from sparseattn.rules import (
    Band,
    Both,
    Except,
    GlobalTokens,
    Keys,
    LayerRule,
    Product,
    Rule,
    SameLabel,
)

#: Pairs of a mask that are computed at a time.
_PAIRS = 1 << 22


def _tile_queries(order: Tensor, rule: LayerRule, rows: int, size: int) -> Tensor:
    """Queries in tiles, padding left out. Shape: [rows, tiles, size]."""
    queries = pad(order, (0, -len(order) % size), value=-1).expand(rows, -1)
    if rule.padded:
        queries = queries.masked_fill(~rule.valid[:, queries[0]], -1)
    return queries.reshape(rows, -1, size)


def _bits(flags: Tensor, dim: int) -> Tensor:
    """Booleans along a dimension as the bits of one number; at most 64."""
    weights = 1 << torch.arange(flags.shape[dim], device=flags.device)
    return (flags.movedim(dim, -1) * weights).sum(-1)


# --- windows, global tokens and listed keys


@dataclass(frozen=True, eq=False)
class Banded:
    """A rule of one window, rows and columns of chosen tokens, and listed keys.

    Attributes:
        band: The window; a token alone where the rule has none.
        rows: Queries that attend to every key. Shape: [batch or 1, length], bool.
        columns: Keys that chosen queries attend to. Their fields have the shape of `rows`.
        keys: Listed keys. Shape: [batch or 1, length, degree], int64.
    """

    band: Band
    rows: Tensor | None
    columns: tuple[Product, ...]
    keys: Tensor | None


def banded(rule: Rule) -> Banded | None:
    """The rule as a window with rows, columns and listed keys; None where it is something else."""
    parts = [_narrowed(part) if isinstance(part, Both) else part for part in rule.parts]
    if not all(isinstance(part, Band | GlobalTokens | Product | Keys) for part in parts):
        return None
    if (band := _widest([part for part in parts if isinstance(part, Band)])) is None:
        return None
    rows, columns = [], []
    for part in parts:
        if isinstance(part, GlobalTokens):
            rows.append(part.tokens)
            columns.append(Product(keys=part.tokens))
        elif isinstance(part, Product) and part.keys is not None:
            columns.append(part)
        elif isinstance(part, Product):
            if part.queries is None:
                return None
            rows.append(part.queries)
    listed = _side_by_side([part.index for part in parts if isinstance(part, Keys)])
    return Banded(band, reduce(torch.logical_or, rows) if rows else None, tuple(columns), listed)


def _narrowed(both: Both) -> Band | Both:
    """A window of chosen queries alone as a radius for each query; other parts as they are."""
    for one, other in ((both.left.parts, both.right.parts), (both.right.parts, both.left.parts)):
        if len(one) == len(other) == 1 and isinstance(one[0], Band):
            chosen = other[0]
            if isinstance(chosen, Product) and chosen.keys is None and chosen.queries is not None:
                radius = torch.as_tensor(one[0].radius, device=chosen.queries.device)
                return Band(torch.where(chosen.queries, radius, 0), one[0].dilation)
    return both


def _widest(bands: list[Band]) -> Band | None:
    """The union of windows; the token alone for none, None where it is no window."""
    if len(bands) < 2:
        return bands[0] if bands else Band(0)
    if any(band.dilation > 1 for band in bands):
        return None
    widest = max([b.radius for b in bands if isinstance(b.radius, int)], default=0)
    each = [b.radius for b in bands if isinstance(b.radius, Tensor)]
    return Band(reduce(torch.maximum, each).clamp(min=widest) if each else widest)


def _side_by_side(indices: list[Tensor]) -> Tensor | None:
    """Lists of keys as one list."""
    if not indices:
        return None
    rows = max(map(len, indices))
    return torch.cat([index.expand(rows, -1, -1) for index in indices], dim=2)


def of_band(banded: Banded, rule: LayerRule, size: int, scatter: bool) -> Lists:
    """The lists of a window, rows, columns and listed keys, for tiles of `size` queries."""
    band, length = _clipped(banded.band, rule.length), rule.length
    order = torch.arange(length, device=rule.valid.device)
    if band.dilation > 1:  # queries that are a step apart become neighbours
        order = torch.argsort(order % band.dilation, stable=True)
    fields = [t for c in banded.columns for t in (c.queries, c.keys)]
    tensors = (banded.rows, banded.keys, band.radius, *fields)
    most = max([len(t) for t in tensors if isinstance(t, Tensor)], default=1)
    rows = len(rule.valid) if rule.padded else most
    queries = _tile_queries(order, rule, rows, size)
    if (wide := banded.rows) is not None:
        wide = wide & rule.valid if rule.padded else wide
        queries = queries.masked_fill(_at(wide, queries), -1)
    entries = [_window(band, order, rule, queries)]
    if banded.columns:
        entries.append(_columns(banded.columns, band, rule, queries))
    if banded.keys is not None:
        entries.append(_listed(banded, band, rule, queries))
    lanes = _bits(queries >= 0, -1)[..., None]
    keys = torch.cat([k.expand(rows, -1, -1) for k, _ in entries], 2)
    bits = torch.cat([(b & lanes).expand(rows, -1, -1) for _, b in entries], 2)
    if banded.keys is None:
        lists = pack(queries, keys, bits)
    else:
        lists = pack(queries, *merged(keys, bits), scatter)
    return lists if wide is None else _global_rows(wide, rule, rows, size).join(lists)


def _clipped(band: Band, length: int) -> Band:
    """The band with a radius below the length, so that no sum of it overflows."""
    most = max(length - 1, 0)
    radius = band.radius
    clipped = radius.clamp(max=most) if isinstance(radius, Tensor) else min(radius, most)
    return Band(clipped, band.dilation)


def _window(band: Band, order: Tensor, rule: LayerRule, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The keys around each tile, and the bits of the queries that have them in their window."""
    tiles, size = queries.shape[1:]
    reach = int(band.radius.max()) if isinstance(band.radius, Tensor) else band.radius
    slots = torch.arange(tiles * size, device=order.device).view(tiles, size)[:, :1]
    slots = slots + torch.arange(-reach, size + reach, device=order.device)
    outside = (slots < 0) | (slots >= len(order))
    keys = order[slots.clamp(0, len(order) - 1)].masked_fill(outside, -1)[None]
    if rule.padded:
        keys = _without_padding(keys, rule.valid)
    if isinstance(band.radius, Tensor) or band.dilation > 1:
        return keys, _window_bits(queries, keys, band)
    # Of a plain window the bits are the same for every tile.
    offset = torch.arange(-reach, size + reach, device=order.device)
    low, high = (offset - reach).clamp(min=0), (offset + reach).clamp(max=size - 1)
    bits = ((2 << high) - (1 << low)).expand(1, tiles, -1)
    return keys, bits.masked_fill(keys < 0, 0)


def _window_bits(queries: Tensor, keys: Tensor, band: Band) -> Tensor:
    """Which queries of each tile have each key in their window. Shape: that of `keys`, int64."""
    bits = torch.zeros_like(keys + queries[..., :1])
    for lane in range(queries.shape[-1]):
        bits += _near(queries[..., lane, None], keys, band).long() << lane
    return bits


def _near(queries: Tensor, keys: Tensor, band: Band) -> Tensor:
    """Whether keys stand in the windows of queries; shapes broadcast, -1 is none."""
    radius: int | Tensor = band.radius
    if isinstance(radius, Tensor):
        rows = torch.arange(len(radius), device=keys.device)[:, None, None]
        radius = radius[rows, queries.clamp(min=0)]
    distance = (queries - keys).abs()
    near = (distance <= radius * band.dilation) & (queries >= 0) & (keys >= 0)
    return near & (distance % band.dilation == 0) if band.dilation > 1 else near


def _without_padding(keys: Tensor, valid: Tensor) -> Tensor:
    """Keys, those that are padding replaced by -1."""
    return torch.where(_at(valid, keys) & (keys >= 0), keys, -1)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """The values of each text at its positions, -1 as 0. Shape: [texts, tiles, entries, ...]."""
    rows = torch.arange(len(values), device=values.device)[:, None, None]
    return values[rows, positions.clamp(min=0)]


def _positions(flags: Tensor) -> Tensor:
    """The positions of the flags that are set, -1 beyond the last. Shape: [texts, most]."""
    most = int(flags.sum(1).max())
    order = torch.argsort(~flags, dim=1, stable=True)[:, :most]
    return order.masked_fill(~flags.gather(1, order), -1)


def _columns(
    columns: tuple[Product, ...], band: Band, rule: LayerRule, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """The keys of all columns, and the bits of the queries that have them beyond their window."""
    every = reduce(torch.logical_or, [c.keys for c in columns if c.keys is not None])
    keys = _positions(every & rule.valid if rule.padded else every)[:, None]
    bits = torch.zeros_like(keys + queries[..., :1])
    for column in columns:
        bits |= _in_column(column, queries, keys)
    near = _window_bits(queries, keys, band)
    keys = keys.expand(-1, queries.shape[1], -1)
    return keys, (bits & ~near).masked_fill(keys < 0, 0)


def _in_column(column: Product, queries: Tensor, keys: Tensor) -> Tensor:
    """The bits of the queries of each tile that have each key in a column."""
    lanes = queries >= 0
    if column.queries is not None:
        lanes = lanes & _at(column.queries, queries)
    assert column.keys is not None
    return _bits(lanes, -1)[..., None] * _at(column.keys, keys)


def _listed(banded: Banded, band: Band, rule: LayerRule, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The listed keys of each tile that are not there already, and the bit of their query."""
    assert banded.keys is not None
    index = banded.keys.sort(dim=2).values
    repeated = torch.zeros_like(index, dtype=torch.bool)
    repeated[:, :, 1:] = index[:, :, 1:] == index[:, :, :-1]
    keys = _at(index.masked_fill(repeated, -1), queries)
    shape = keys.shape[2:]
    if rule.padded:
        keys = torch.unflatten(_without_padding(keys.flatten(2), rule.valid), 2, shape)
    for column in banded.columns:
        assert column.keys is not None
        known = torch.unflatten(_at(column.keys, keys.flatten(2)), 2, shape)
        if column.queries is not None:
            known = known & _at(column.queries, queries)[..., None]
        keys = keys.masked_fill(known, -1)
    lanes = torch.arange(queries.shape[2], device=keys.device)
    near = [_near(queries[..., i, None], keys[..., i, :], band) for i in lanes.tolist()]
    bits = (1 << lanes)[:, None].expand_as(keys).masked_fill(torch.stack(near, 2) | (keys < 0), 0)
    return keys.flatten(2), bits.flatten(2)


def _global_rows(marked: Tensor, rule: LayerRule, rows: int, size: int) -> Lists:
    """Tiles of global queries: every real key."""
    positions = _positions(marked.expand(rows, -1))
    queries = pad(positions, (0, -positions.shape[1] % size), value=-1).view(rows, -1, size)
    lanes = _bits(queries >= 0, -1)[..., None].expand(-1, -1, rule.length)
    if rule.padded:
        lanes = lanes * rule.valid[:, None, :]
    keys = torch.arange(rule.length, device=positions.device).expand_as(lanes)
    return pack(queries, keys, lanes)


# --- any rule


def of_rule(
    shared: Rule, heads: tuple[int, ...], rule: LayerRule, size: int, scatter: bool
) -> Iterator[tuple[tuple[int, ...], Lists]]:
    """The lists of any rule, from its mask; each head its own where the mask differs."""
    order = _order(shared, rule)
    step = max(1, _PAIRS // (len(rule.valid) * len(heads) * rule.length * size)) * size
    reach = _reach(shared, rule.length)
    portions: list[list[Lists]] = []
    for start in range(0, len(order), step):
        queries = order[start : start + step]
        low, high = max(0, int(queries.min()) - reach), int(queries.max()) + reach + 1
        keys = torch.arange(low, min(rule.length, high), device=order.device)
        portions.append(_of_mask(shared, heads, rule, queries, keys, size, scatter))
    for index, lists in enumerate(zip(*portions, strict=True)):
        members = heads if len(portions[0]) == 1 else heads[index : index + 1]
        yield members, reduce(Lists.join, lists)


def _of_mask(
    shared: Rule,
    heads: tuple[int, ...],
    rule: LayerRule,
    order: Tensor,
    keys: Tensor,
    size: int,
    scatter: bool,
) -> list[Lists]:
    """Lists of some queries; several where the rule differs between heads."""
    allowed = shared.allowed(order, keys) | (order[:, None] == keys)
    if rule.padded:
        allowed = allowed & rule.valid[:, None, order, None] & rule.valid[:, None, None, keys]
    if allowed.shape[1] > 1:
        allowed = allowed[:, list(heads)]
    rows, masks = allowed.shape[:2]
    queries = _tile_queries(order, rule, rows, size)
    tiles = queries.shape[1]
    allowed = pad(allowed, (0, 0, 0, tiles * size - len(order)))
    bits = _bits(allowed.view(rows, masks, tiles, size, len(keys)), 3)
    keys = keys.expand(rows, tiles, -1)
    return [pack(queries, keys, bits[:, mask], scatter) for mask in range(masks)]


def _order(shared: Rule, rule: LayerRule) -> Tensor:
    """The order of queries in which neighbours need the same keys."""
    if all(isinstance(part, SameLabel | GlobalTokens) for part in shared.parts):
        for part in shared.parts:
            if isinstance(part, SameLabel):
                return torch.argsort(part.labels[0], stable=True)
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
