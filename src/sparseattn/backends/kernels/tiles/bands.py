"""The lists of windows, global tokens and listed keys, by arithmetic on their structure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseattn.backends.kernels.tiles.lists import Lists, bits_of, joined, packed, tiled
from sparseattn.rules import Band, GlobalTokens, Keys, LayerRule, Rule

__all__ = ["Banded", "banded", "of_band"]


@dataclass(frozen=True, eq=False)
class Banded:
    """A rule of one window, global tokens and listed keys.

    Attributes:
        band: The window; a token alone where the rule has none.
        globals: Global tokens. Shape: [batch or 1, length], bool.
        keys: Listed keys. Shape: [batch or 1, length, degree], int64.
    """

    band: Band
    globals: Tensor | None
    keys: Tensor | None


def banded(rule: Rule) -> Banded | None:
    """The rule as a window with extras, or None where it is something else."""
    bands = [part for part in rule.parts if isinstance(part, Band)]
    strips = [part.tokens for part in rule.parts if isinstance(part, GlobalTokens)]
    keys = [part.index for part in rule.parts if isinstance(part, Keys)]
    if len(bands) + len(strips) + len(keys) < len(rule.parts):
        return None
    if len(bands) > 1:
        radii = [b.radius for b in bands if isinstance(b.radius, int) and b.dilation == 1]
        if len(radii) < len(bands):
            return None
        bands = [Band(max(radii))]
    marked = None
    for tokens in strips:
        marked = tokens if marked is None else marked | tokens
    listed = None
    if keys:
        rows = max(len(k) for k in keys)
        listed = torch.cat([k.expand(rows, -1, -1) for k in keys], dim=2)
    return Banded(bands[0] if bands else Band(0), marked, listed)


def of_band(banded: Banded, rule: LayerRule, size: int) -> Lists:
    """The lists of a window with extras, without a pair that is not near a tile.

    Args:
        banded: The window and the extras.
        rule: The rule that they are part of.
        size: Queries a tile.
    """
    band, length = _clipped(banded.band, rule.length), rule.length
    order = torch.arange(length, device=rule.valid.device)
    if band.dilation > 1:  # queries that are a step apart become neighbours
        order = torch.argsort(order % band.dilation, stable=True)
    tensors = [t for t in (banded.globals, banded.keys, band.radius) if isinstance(t, Tensor)]
    rows = len(rule.valid) if rule.padded else max([len(t) for t in tensors], default=1)
    queries = tiled(order, rule, rows, size)
    marked = None
    if banded.globals is not None:
        marked = banded.globals & rule.valid if rule.padded else banded.globals
        queries = queries.masked_fill(_at(marked, queries), -1)
    entries = [_window(band, order, rule, queries)]
    if marked is not None:
        columns = _places(marked)[:, None, :].expand(-1, queries.shape[1], -1)
        near = _window_bits(queries, columns, band)
        entries.append((columns, (~near).masked_fill(columns < 0, 0)))
    if banded.keys is not None:
        entries.append(_listed(banded.keys, marked, band, rule, queries))
    lanes = bits_of(queries >= 0, -1)[..., None]
    keys = torch.cat([k.expand(rows, -1, -1) for k, _ in entries], 2)
    lists = packed(
        queries, keys, torch.cat([(b & lanes).expand(rows, -1, -1) for _, b in entries], 2)
    )
    return lists if marked is None else joined(_global_rows(marked, rule, rows, size), lists)


def _clipped(band: Band, length: int) -> Band:
    """The band with a radius that no number of tokens exceeds."""
    most = max(length - 1, 0)
    radius = band.radius
    clipped = radius.clamp(max=most) if isinstance(radius, Tensor) else min(radius, most)
    return Band(clipped, band.dilation)


def _window(band: Band, order: Tensor, rule: LayerRule, queries: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of the slab around each tile, and which queries have them in their window."""
    tiles, size = queries.shape[1:]
    reach = int(band.radius.max()) if isinstance(band.radius, Tensor) else band.radius
    slots = torch.arange(tiles * size, device=order.device).view(tiles, size)[:, :1]
    slots = slots + torch.arange(-reach, size + reach, device=order.device)
    outside = (slots < 0) | (slots >= len(order))
    keys = order[slots.clamp(0, len(order) - 1)].masked_fill(outside, -1)[None]
    if rule.padded:
        keys = _only(keys, rule.valid)
    if isinstance(band.radius, Tensor) or band.dilation > 1:
        return keys, _window_bits(queries, keys, band)
    return keys, _slab_bits(tiles, size, reach, order.device).masked_fill(keys < 0, 0)


def _window_bits(queries: Tensor, keys: Tensor, band: Band) -> Tensor:
    """Which queries of each tile have each key in their window.

    Args:
        queries: Shape: [texts or 1, tiles, size], -1 for none.
        keys: Shape: [texts or 1, tiles, entries], -1 for none.
        band: The window.

    Returns:
        Shape: [texts or 1, tiles, entries], int64.
    """
    found = torch.zeros_like(keys + queries[..., :1])
    for lane in range(queries.shape[-1]):
        query = queries[..., lane, None]
        found += _near(query, keys, band).long() << lane
    return found


def _near(queries: Tensor, keys: Tensor, band: Band) -> Tensor:
    """Whether keys stand in the windows of queries; shapes broadcast, -1 is none."""
    radius: int | Tensor = band.radius
    if isinstance(radius, Tensor):
        rows = torch.arange(len(radius), device=keys.device)[:, None, None]
        radius = radius[rows, queries.clamp(min=0)]
    distance = (queries - keys).abs()
    near = (distance <= radius * band.dilation) & (queries >= 0) & (keys >= 0)
    return near & (distance % band.dilation == 0) if band.dilation > 1 else near


def _slab_bits(tiles: int, size: int, reach: int, device: torch.device) -> Tensor:
    """`_window_bits` of whole tiles against the slabs around them, the same for every tile."""
    place = torch.arange(-reach, size + reach, device=device)
    low, high = (place - reach).clamp(min=0), (place + reach).clamp(max=size - 1)
    one = torch.ones((), dtype=torch.int64, device=device)
    return (((one + 1) << high) - (one << low)).expand(1, tiles, -1)


def _only(keys: Tensor, real: Tensor) -> Tensor:
    """Keys, those that are padding replaced by -1."""
    return torch.where(_at(real, keys) & (keys >= 0), keys, -1)


def _at(flags: Tensor, places: Tensor) -> Tensor:
    """What each text has at places of it; -1 is read as 0.

    Args:
        flags: Shape: [texts or 1, length, ...].
        places: Shape: [texts or 1, tiles, entries].

    Returns:
        Shape: [texts or 1, tiles, entries, ...].
    """
    rows = torch.arange(len(flags), device=flags.device)[:, None, None]
    return flags[rows, places.clamp(min=0)]


def _places(flags: Tensor) -> Tensor:
    """The places of the flags that are set, -1 beyond the last. Shape: [texts, most]."""
    most = int(flags.sum(1).max())
    order = torch.argsort(~flags, dim=1, stable=True)[:, :most]
    return order.masked_fill(~flags.gather(1, order), -1)


def _listed(
    index: Tensor, marked: Tensor | None, band: Band, rule: LayerRule, queries: Tensor
) -> tuple[Tensor, Tensor]:
    """The listed keys of each tile that are not there already, and the bit of their query."""
    index = index.sort(dim=2).values
    again = torch.zeros_like(index, dtype=torch.bool)
    again[:, :, 1:] = index[:, :, 1:] == index[:, :, :-1]
    keys = _at(index.masked_fill(again, -1), queries)
    shape = keys.shape
    if shape[-1] and rule.padded:
        keys = _only(keys.flatten(2), rule.valid).view(-1, *shape[1:])
    if shape[-1] and marked is not None:
        known = _at(marked, keys.flatten(2)).view(-1, *shape[1:])
        keys = keys.masked_fill(known, -1)
    lanes = torch.arange(queries.shape[2], device=keys.device)
    near = [_near(queries[..., i, None], keys[..., i, :], band) for i in lanes.tolist()]
    bit = torch.ones_like(lanes) << lanes
    bits = bit[:, None].expand_as(keys).masked_fill(torch.stack(near, 2) | (keys < 0), 0)
    return keys.flatten(2), bits.flatten(2)


def _global_rows(marked: Tensor, rule: LayerRule, rows: int, size: int) -> Lists:
    """Tiles of global queries: every real key."""
    places = _places(marked.expand(rows, -1))
    tiles = -(-places.shape[1] // size)
    queries = torch.nn.functional.pad(places, (0, tiles * size - places.shape[1]), value=-1)
    queries = queries.view(rows, tiles, size)
    lanes = bits_of(queries >= 0, -1)[..., None].expand(-1, -1, rule.length)
    if rule.padded:
        lanes = lanes * rule.valid[:, None, :]
    keys = torch.arange(rule.length, device=places.device).expand_as(lanes)
    return packed(queries, keys, lanes)
