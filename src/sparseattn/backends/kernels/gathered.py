"""The lists of `tiles` in plain PyTorch: their keys gathered, the tiles computed as a batch.

Runs on every device, and autograd, autocast and dropout are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.backend import Call, DistanceBias
from sparseattn.backends.kernels.tiles import Tiles, tiles_of
from sparseattn.rules import LayerRule

#: Queries a tile, in narrow and in wide windows: more share their keys' copies, fewer compute less
#: beyond the window.
SIZES = (32, 64)
#: Keys of the mean list from which a window is wide (measured: docs/log.md).
_WIDE = 256
_HALF = (torch.bfloat16, torch.float16)


def attend_gathered(call: Call) -> Tensor:
    """Computes a call; see `Backend.attend`."""
    tiles = gathered_tiles(call.rule)
    batch, heads, length, width = call.query.shape
    # One row more than there are tokens: queries that are none write there.
    context = call.query.new_zeros(heads, batch * length + 1, width)
    states = [x.transpose(0, 1).flatten(1, 2) for x in (call.query, call.key, call.value)]
    if call.trains:
        # The gradients of a key are added up over the tiles that read it: of a global token, over
        # all, for which half precision has too few bits.
        states[1:] = [x.float() if x.dtype in _HALF else x for x in states[1:]]
    for group in range(len(tiles.first)):
        members = (tiles.group == group).nonzero().flatten()
        q, k, v = states if len(members) == heads else [x[members] for x in states]
        for queries, keys, allowed in _batches(tiles, group):
            mask = _with_bias(call, members, queries, keys, allowed[:, None])
            part = _computed(call, (q, k, v), queries, keys, mask)
            place = queries.flatten().masked_fill(queries.flatten() < 0, batch * length)
            rows = context if len(members) == heads else context[members]
            rows = rows.index_copy(1, place, part.to(context.dtype))
            context = rows if len(members) == heads else context.index_copy(0, members, rows)
    if call.trains and not context.requires_grad:  # all is padding: gradients of zero
        for state in states:
            context = context + state[:, :0].sum().to(context.dtype)
    return context[:, :-1].view(heads, batch, length, width).transpose(0, 1)


def gathered_tiles(rule: LayerRule) -> Tiles:
    """The lists of a rule, for tiles that suit its windows."""
    tiles = tiles_of(rule, SIZES[0])
    wide = len(tiles.shared.keys) > _WIDE * len(tiles.shared.counts)
    return tiles_of(rule, SIZES[1]) if wide else tiles


def _with_bias(call: Call, heads: Tensor, queries: Tensor, keys: Tensor, allowed: Tensor) -> Tensor:
    """What the scores are masked with. Shape: [tiles, 1 or heads, size, longest]."""
    if not isinstance(call.bias, DistanceBias):
        return allowed
    ahead = keys[:, None, :] % call.rule.length - queries[:, :, None] % call.rule.length
    bias = call.bias.values[heads][:, ahead + call.rule.length - 1].transpose(0, 1)
    return bias.to(call.query.dtype).masked_fill(~allowed, float("-inf"))


def _computed(
    call: Call, states: tuple[Tensor, Tensor, Tensor], queries: Tensor, keys: Tensor, mask: Tensor
) -> Tensor:
    """The contexts of a batch of tiles. Shape: [heads, tiles * size, width]."""
    q, k, v = states
    tile = q[:, queries.clamp(min=0)]
    out = scaled_dot_product_attention(
        tile.transpose(0, 1),
        k[:, keys].to(q.dtype).transpose(0, 1),
        v[:, keys].to(q.dtype).transpose(0, 1),
        attn_mask=mask,
        dropout_p=call.dropout,
        scale=call.scale,
    )
    return out.transpose(0, 1).flatten(1, 2)


def _batches(tiles: Tiles, group: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tiles of about equally long lists, padded to one length.

    Yields:
        Queries (-1 for none) and keys as rows of all texts, and which pairs are allowed.
        Shape: [tiles, size], [tiles, longest], [tiles, size, longest].
    """
    first = tiles.first[group]
    count = int(first[0, 1] - first[0, 0])
    index = (first[:, :1] + torch.arange(count, device=first.device)).flatten()
    text = torch.arange(len(first), device=first.device).repeat_interleave(count)
    lengths = tiles.shared.counts[index]
    # Powers of two: a tile of global queries, with every key, does not make all others as long.
    classes = torch.where(lengths > 0, torch.log2(lengths.clamp(min=1).float()).ceil(), -1)
    for size in sorted(set(classes.tolist())):
        if size >= 0:
            chosen = (classes == size).nonzero().flatten()
            yield _padded(tiles, index[chosen], text[chosen] * tiles.length)


def _padded(tiles: Tiles, index: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    lists = tiles.shared
    counts = lists.counts[index]
    slots = torch.arange(int(counts.max()), device=index.device)
    present = slots < counts[:, None]
    place = (lists.starts[index][:, None] + slots).masked_fill(~present, 0)
    # A list's first key stands in for the missing ones: padding is never read.
    keys = torch.where(present, lists.keys[place], lists.keys[place[:, :1]]) + shift[:, None]
    bits = lists.marks[place].masked_fill(~present, 0)
    queries = tiles.queries[index].long()
    lanes = torch.arange(queries.shape[1], device=index.device)
    mask = (bits[:, None, :] >> lanes[:, None] & 1).bool() | (queries < 0)[:, :, None]
    return torch.where(queries < 0, -1, queries + shift[:, None]), keys.long(), mask
