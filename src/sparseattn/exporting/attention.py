"""Sparse attention in operators that every runtime has, for graphs of any length and batch.

What depends on positions and padding alone is computed once a forward pass and shared by layers.
A window's table lists, for each block of queries, the keys within its reach; attending gathers
them, so that both time and memory grow with the length and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.exporting.spans import Masked, Span, Window
from sparseattn.pattern import rule_of
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch

#: Added to the scores of pairs that are not allowed. Their weights are 0 to the last bit, and a
#: row without any key stays finite; a lower number is infinite in half precision.
_NEVER = -3e4


@dataclass(frozen=True)
class Table:
    """What a span needs to attend, for one batch.

    Attributes:
        mask: Added to the scores. Shape of a window: [1 or heads, batch * blocks, queries, keys];
            else [1 or heads, batch, 1 or length, length].
        valid: 1 for a real token that is no global one. Shape: [batch, length, 1].
        queries: Which token of the flattened batch each query of a block is. Shape:
            [batch * blocks * queries], int64.
        keys: Which token of the flattened batch each key is. Shape: [batch * blocks * keys], int64.
        block: Queries of a block; 0 for what is no window.
        rows: Which token of the flattened batch each global one is. Shape: [batch * slots], int64.
        spots: Where it stands. Shape: [batch, length, slots].
        padding: Added to the scores of global tokens. Shape: [1 or heads, batch, 1 or slots,
            length].
    """

    mask: Tensor
    valid: Tensor
    queries: Tensor | None = None
    keys: Tensor | None = None
    block: int = 0
    rows: Tensor | None = None
    spots: Tensor | None = None
    padding: Tensor | None = None


def table_of(span: Span, valid: Tensor, dtype: torch.dtype, bias: Tensor | None = None) -> Table:
    """What a span needs for a batch.

    Args:
        span: The span.
        valid: True for a real token. Shape: [batch, length], bool.
        dtype: Of the scores.
        bias: What the model adds to the scores of a pair, by how far the key stands after the
            query; beyond its ends they stay the same. Shape: [heads, 2 * farthest + 1].
    """
    if isinstance(span, Window):
        return _window_table(span, valid, dtype, bias)
    allowed = valid[None, :, None]
    if isinstance(span, Masked):
        allowed = allowed & _rule_mask(span, valid).transpose(0, 1)
    mask, every = _added(allowed, dtype), torch.arange(valid.shape[1], device=valid.device)
    if bias is not None:
        mask = mask + _biased(bias, every - every[:, None])[:, None]
    return Table(mask, valid[:, :, None].to(dtype))


def _biased(bias: Tensor, apart: Tensor) -> Tensor:
    """The bias of pairs that stand so far apart. Shape: [heads, ...], of these."""
    farthest = bias.shape[1] // 2
    index = apart.clamp(-farthest, farthest) + farthest
    return bias.index_select(1, index.reshape(-1)).reshape(-1, *apart.shape)


def _rule_mask(span: Masked, valid: Tensor) -> Tensor:
    every = torch.arange(valid.shape[1], device=valid.device)
    allowed = rule_of(span.pattern, TokenBatch(valid), span.layer).allowed(every, every)
    if span.limit is not None:
        allowed = allowed & Rule((Band(span.limit),)).allowed(every, every)
    return allowed | (every[:, None] == every)


def _added(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 for an allowed pair."""
    return (~allowed).to(dtype) * _NEVER


def _window_table(window: Window, valid: Tensor, dtype: torch.dtype, bias: Tensor | None) -> Table:
    grid = _Grid.of(window, valid)
    added = None if bias is None else _biased(bias, grid.apart)[:, None]
    allowed, keys = _near(window.bands, grid), grid.keys[None]
    if not window.slots:
        return _table_of(grid, allowed & grid.at_keys(valid), keys, valid, dtype, added)
    spots = _spots(window.slots, valid)
    is_global = spots.any(dim=1)
    if window.limit is not None:
        either = grid.at_keys(is_global) | grid.at_queries(is_global)
        allowed = allowed | (either & _near(((window.limit, 1),), grid))
        return _table_of(grid, allowed & grid.at_keys(valid), keys, valid, dtype, added)
    others, rows = valid & ~is_global, spots.long().argmax(dim=2)
    allowed = allowed & grid.at_keys(others)
    shown = spots.any(dim=2)[:, None, None].expand(*allowed.shape[:3], -1)
    listed = rows[:, None].expand(*allowed.shape[:2], -1)
    keys = torch.cat([keys.expand(valid.shape[0], -1, -1), listed], dim=2)
    padding = _added(valid[None, :, None], dtype)
    if bias is not None and added is not None:
        every = torch.arange(valid.shape[1], device=valid.device)
        padding = padding + _biased(bias, every - rows[:, :, None])
        columns = _biased(bias, rows[:, None] - grid.queries[:, None])
        columns = cut(columns, 2, grid.block).flatten(1, 2)
        added = torch.cat([added.expand(-1, columns.shape[1], -1, -1), columns], dim=3)
    allowed = torch.cat([allowed, shown], dim=3)
    return replace(
        _table_of(grid, allowed, keys, valid, dtype, added),
        valid=others[:, :, None].to(dtype),
        rows=_flat(rows, valid),
        spots=spots.transpose(1, 2).to(dtype),
        padding=padding,
    )


def _table_of(
    grid: _Grid,
    allowed: Tensor,
    keys: Tensor,
    valid: Tensor,
    dtype: torch.dtype,
    added: Tensor | None,
) -> Table:
    mask = _added(allowed.flatten(0, 1)[None], dtype)
    return Table(
        mask=mask if added is None else mask + added,
        valid=valid[:, :, None].to(dtype),
        queries=_flat(grid.queries[None].expand(valid.shape[0], -1), valid),
        keys=_flat(keys.expand(valid.shape[0], -1, -1).flatten(1), valid),
        block=grid.block,
    )


@dataclass(frozen=True)
class _Grid:
    """Blocks of queries, and the keys within their reach; those beyond the ends stand for others.

    Attributes:
        block: Queries of a block.
        queries: Shape: [blocks * queries], int64.
        keys: Shape: [blocks, keys], int64.
        inside: Whether there is such a key. Shape: [blocks, 1, keys], bool.
        apart: How far a key stands after a query, in every block. Shape: [queries, keys], int64.
    """

    block: int
    queries: Tensor
    keys: Tensor
    inside: Tensor
    apart: Tensor

    @classmethod
    def of(cls, window: Window, valid: Tensor) -> _Grid:
        """Cuts the tokens of a batch."""
        block, last, device = block_of(window.reach), valid.shape[1] - 1, valid.device
        blocks = _count(valid, block)
        starts = torch.arange(blocks, device=device)[:, None] * block
        ahead = torch.arange(-window.reach, block + window.reach, device=device)
        keys = starts + ahead
        inside = (keys >= 0) & (keys <= last)
        queries = torch.arange(blocks * block, device=device).clamp(max=last)
        apart = ahead - torch.arange(block, device=device)[:, None]
        return cls(block, queries, keys.clamp(min=0, max=last), inside[:, None], apart)

    def at_keys(self, flags: Tensor) -> Tensor:
        """Flags of tokens, false beyond the ends. Shape: [batch, blocks, 1, keys], bool."""
        at = cut(flags.index_select(1, self.keys.reshape(-1)), 1, self.keys.shape[1])
        return at[:, :, None] & self.inside

    def at_queries(self, flags: Tensor) -> Tensor:
        """Flags of tokens. Shape: [batch, blocks, queries, 1], bool."""
        at = cut(flags.index_select(1, self.queries), 1, self.block)
        return at[:, :, :, None]


def block_of(reach: int) -> int:
    """Queries of a block: more save copies of keys, fewer save scores beyond the window."""
    return 32 if reach <= 16 else 64 if reach <= 96 else 128


def _count(valid: Tensor, block: int) -> Any:
    """How many blocks the tokens of a text fill.

    In a graph the number is read from a tensor: from a symbolic length the tracer would conclude
    that there is always more than one block, as in its example.
    """
    if not torch.compiler.is_exporting():
        return -(-valid.shape[1] // block)
    length = torch.ones_like(valid[0], dtype=torch.int64).sum()
    count = (length + block - 1).div(block, rounding_mode="floor").item()
    torch._check(count >= 1)  # type: ignore[no-untyped-call]
    return count


def _near(bands: Iterable[tuple[int, int]], grid: _Grid) -> Tensor:
    """Which keys of a block are in the bands of its queries. Shape: [queries, keys], bool."""
    reach = (grid.keys.shape[1] - grid.block) // 2
    queries = torch.arange(reach, reach + grid.block, device=grid.keys.device)
    keys = torch.arange(grid.keys.shape[1], device=grid.keys.device)
    return Rule(tuple(Band(*band) for band in bands)).allowed(queries, keys)[0, 0]


def _spots(slots: tuple[int, ...], valid: Tensor) -> Tensor:
    """Which token is the global one of each slot. Shape: [batch, slots, length], bool."""
    positions = valid.long().cumsum(dim=1) - 1
    wanted = torch.tensor(slots, dtype=torch.int64, device=valid.device)
    return (positions[:, None] == wanted[:, None]) & valid[:, None]


def _flat(index: Tensor, valid: Tensor) -> Tensor:
    """Indices into the tokens of each text as indices into all tokens of a batch."""
    texts = torch.arange(valid.shape[0], device=index.device)[:, None]
    return (index + texts * valid.shape[1]).reshape(-1)


def attend(query: Tensor, key: Tensor, value: Tensor, table: Table, scale: float) -> Tensor:
    """Attention of heads that share a span.

    Args:
        query: Shape: [batch, length, heads, head width].
        key: As `query`.
        value: As `query`.
        table: Of the span.
        scale: Factor of the scores.

    Returns:
        The context, 0 for padding. Shape: [batch, length, heads * head width].
    """
    # Heads first, before keys are gathered, each several times: to move them later takes longer.
    query, key, value = (states.permute(2, 0, 1, 3) for states in (query * scale, key, value))
    if table.queries is None or table.keys is None:
        return _sdpa(query, key, value, table.mask) * table.valid
    queries = _picked(query, table.queries, table.block)
    keys, values = (_picked(x, table.keys, table.mask.shape[3]) for x in (key, value))
    context = _sdpa(queries, keys, values, table.mask)
    context = context.reshape(query.shape[1], -1, context.shape[2]).narrow(1, 0, query.shape[2])
    if table.rows is None or table.spots is None or table.padding is None:
        return context * table.valid
    rows = _picked(query, table.rows, table.spots.shape[2])
    rows = _sdpa(rows, key, value, table.padding)
    return context * table.valid + table.spots @ rows


def cut(states: Tensor, dim: int, size: int) -> Tensor:
    """Cuts a dimension into pieces of a size; these become the next dimension."""
    pieces: Tensor = states.unflatten(dim, (-1, size))  # type: ignore[no-untyped-call]
    return pieces


def _picked(states: Tensor, index: Tensor, count: int) -> Tensor:
    """States of listed tokens, so many at a time. Shape: [heads, lists, count, width]."""
    return cut(states.flatten(1, 2).index_select(1, index), 1, count)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The context of states with heads first. Shape: [batch, queries, heads * width]."""
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    return _tokens_first(context)


def _tokens_first(context: Tensor) -> Tensor:
    """From [heads, batch, tokens, width] to [batch, tokens, heads * width]."""
    return context.permute(1, 2, 0, 3).flatten(2)
