"""Sparse attention in operators that every runtime has, for graphs of any length and batch.

What depends on positions and padding alone is computed once a forward pass and shared by layers. A
window's keys are gathered for each block of queries, so that both time and memory grow with the
length and not with its square. Global tokens become rows and columns of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.backend import DistanceBias
from sparseattn.exporting.spans import Masked, Span, Window
from sparseattn.pattern import rule_of
from sparseattn.patterns.full import Full
from sparseattn.rules import Band, Rule
from sparseattn.tokens import TokenBatch

#: From scaled queries, keys and values, [heads, batch, length, head width] each, to the context, 0
#: for padding, [batch, length, heads * head width].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
#: What is added to the scores of so distant pairs. Shape: [heads, ...], of [...].
_Bias = Callable[[Tensor], Tensor]

#: Added to the scores of pairs that are not allowed. Their weights are 0 to the last bit, and a
#: row without any key stays finite; a lower number is infinite in half precision.
_NEVER = -3e4


def attention_of(
    span: Span, valid: Tensor, dtype: torch.dtype, bias: DistanceBias | None, heads: Iterable[int]
) -> Attend:
    """What computes the attention of heads that share a span, in one batch.

    Args:
        span: The span.
        valid: True for a real token. Shape: [batch, length], bool.
        dtype: Of the scores.
        bias: What the model adds to the scores; beyond its ends they stay the same.
        heads: Those heads, of all that the bias has.
    """
    biased = None if bias is None else _by_distance(bias.values[list(heads)])
    if isinstance(span, Window):
        return _windows(span, valid, dtype, biased)
    allowed, real = valid[None, :, None], valid[:, :, None].to(dtype)
    if not isinstance(span.pattern, Full):
        allowed = allowed & _rule_mask(span, valid).transpose(0, 1)
    mask = _added(allowed, dtype)
    if biased is not None:
        every = torch.arange(valid.shape[1], device=valid.device)
        mask = mask + biased(every - every[:, None])[:, None]
    return lambda query, key, value: _sdpa(query, key, value, mask) * real


def _by_distance(values: Tensor) -> _Bias:
    farthest = values.shape[1] // 2

    def biased(apart: Tensor) -> Tensor:
        index = apart.clamp(-farthest, farthest) + farthest
        return values.index_select(1, index.reshape(-1)).reshape(-1, *apart.shape)

    return biased


def _rule_mask(span: Masked, valid: Tensor) -> Tensor:
    every = torch.arange(valid.shape[1], device=valid.device)
    allowed = rule_of(span.pattern, TokenBatch(valid), span.layer).allowed(every, every)
    if span.limit is not None:
        allowed = allowed & Rule((Band(span.limit),)).allowed(every, every)
    return allowed | (every[:, None] == every)


def _added(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 for an allowed pair."""
    return (~allowed).to(dtype) * _NEVER


def _windows(window: Window, valid: Tensor, dtype: torch.dtype, bias: _Bias | None) -> Attend:
    blocks = _Blocks.of(window.reach, valid)
    allowed = blocks.near(window.bands)
    if window.slots and window.limit is None:
        return _with_global_tokens(window.slots, blocks, allowed, valid, dtype, bias)
    if window.slots:
        is_global = _spots(window.slots, valid).any(dim=1)
        either = blocks.at_keys(is_global) | blocks.at_queries(is_global)
        allowed = allowed | (either & blocks.near(((window.reach, 1),)))
    mask = _added(allowed & blocks.at_keys(valid), dtype).flatten(0, 1)[None]
    if bias is not None:
        mask = mask + bias(blocks.apart)[:, None]
    near, real = blocks.attend(mask, blocks.keys[None], valid), valid[:, :, None].to(dtype)
    return lambda query, key, value: near(query, key, value) * real


def _with_global_tokens(
    slots: tuple[int, ...],
    blocks: _Blocks,
    near: Tensor,
    valid: Tensor,
    dtype: torch.dtype,
    bias: _Bias | None,
) -> Attend:
    """Global tokens are further keys of each block, and attend to every token by themselves."""
    spots = _spots(slots, valid)
    others, rows = valid & ~spots.any(dim=1), spots.long().argmax(dim=2)
    allowed = near & blocks.at_keys(others)
    shown = spots.any(dim=2)[:, None, None].expand(*allowed.shape[:3], -1)
    listed = rows[:, None].expand(*allowed.shape[:2], -1)
    keys = torch.cat([blocks.keys.expand(valid.shape[0], -1, -1), listed], dim=2)
    mask = _added(torch.cat([allowed, shown], dim=3).flatten(0, 1)[None], dtype)
    of_rows = _added(valid[None, :, None], dtype)
    if bias is not None:
        every = torch.arange(valid.shape[1], device=valid.device)
        of_rows = of_rows + bias(every - rows[:, :, None])
        columns = cut(bias(rows[:, None] - blocks.queries[:, None]), 2, blocks.size).flatten(1, 2)
        inner = bias(blocks.apart)[:, None].expand(-1, columns.shape[1], -1, -1)
        mask = mask + torch.cat([inner, columns], dim=3)
    attend, listed_rows = blocks.attend(mask, keys, valid), _flat(rows, valid)
    kept, back = others[:, :, None].to(dtype), spots.transpose(1, 2).to(dtype)

    def both(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        context = _sdpa(_picked(query, listed_rows, len(slots)), key, value, of_rows)
        return attend(query, key, value) * kept + back @ context

    return both


@dataclass(frozen=True)
class _Blocks:
    """Blocks of queries, and the keys within their reach; those beyond the ends stand for others.

    Attributes:
        size: Queries of a block.
        queries: Shape: [blocks * queries], int64.
        keys: Shape: [blocks, keys], int64.
        inside: Whether there is such a key. Shape: [blocks, 1, keys], bool.
        apart: How far a key stands after a query, in every block. Shape: [queries, keys], int64.
    """

    size: int
    queries: Tensor
    keys: Tensor
    inside: Tensor
    apart: Tensor

    @classmethod
    def of(cls, reach: int, valid: Tensor) -> _Blocks:
        """Cuts the tokens of a batch."""
        size, last, device = block_of(reach), valid.shape[1] - 1, valid.device
        count = _count(valid, size)
        starts = torch.arange(count, device=device)[:, None] * size
        ahead = torch.arange(-reach, size + reach, device=device)
        keys = starts + ahead
        inside = (keys >= 0) & (keys <= last)
        queries = torch.arange(count * size, device=device).clamp(max=last)
        apart = ahead - torch.arange(size, device=device)[:, None]
        return cls(size, queries, keys.clamp(min=0, max=last), inside[:, None], apart)

    def at_keys(self, flags: Tensor) -> Tensor:
        """Flags of tokens, false beyond the ends. Shape: [batch, blocks, 1, keys], bool."""
        at = cut(flags.index_select(1, self.keys.reshape(-1)), 1, self.keys.shape[1])
        return at[:, :, None] & self.inside

    def at_queries(self, flags: Tensor) -> Tensor:
        """Flags of tokens. Shape: [batch, blocks, queries, 1], bool."""
        return cut(flags.index_select(1, self.queries), 1, self.size)[:, :, :, None]

    def near(self, bands: Iterable[tuple[int, int]]) -> Tensor:
        """Which keys are in the bands of their queries. Shape: [queries, keys], bool."""
        away = self.apart.abs()
        parts = [(away <= radius * step) & (away % step == 0) for radius, step in bands]
        return torch.stack(parts).any(dim=0)

    def attend(self, mask: Tensor, keys: Tensor, valid: Tensor) -> Attend:
        """Attends block by block.

        Args:
            mask: Added to the scores. Shape: [1 or heads, batch * blocks, queries, keys].
            keys: Which ones each block attends to. Shape: [batch or 1, blocks, keys], int64.
            valid: True for a real token. Shape: [batch, length], bool.
        """
        of_queries = _flat(self.queries[None].expand(valid.shape[0], -1), valid)
        of_keys = _flat(keys.expand(valid.shape[0], -1, -1).flatten(1), valid)

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            queries = _picked(query, of_queries, self.size)
            keys, values = (_picked(x, of_keys, mask.shape[3]) for x in (key, value))
            context = _sdpa(queries, keys, values, mask)
            context = context.reshape(query.shape[1], -1, context.shape[2])
            return context.narrow(1, 0, query.shape[2])

        return attend


def block_of(reach: int) -> int:
    """Queries of a block: more save copies of keys, fewer save scores beyond the window."""
    return 32 if reach <= 16 else 64 if reach <= 96 else 128


def _count(valid: Tensor, size: int) -> Any:
    """How many blocks the tokens of a text fill.

    In a graph the number is read from a tensor: from a symbolic length the tracer would conclude
    that there is always more than one block, as in its example.
    """
    if not torch.compiler.is_exporting():
        return -(-valid.shape[1] // size)
    length = torch.ones_like(valid[0], dtype=torch.int64).sum()
    count = (length + size - 1).div(size, rounding_mode="floor").item()
    torch._check(count >= 1)  # type: ignore[no-untyped-call]
    return count


def _spots(slots: tuple[int, ...], valid: Tensor) -> Tensor:
    """Which token is the global one of each slot. Shape: [batch, slots, length], bool."""
    positions = valid.long().cumsum(dim=1) - 1
    wanted = torch.tensor(slots, dtype=torch.int64, device=valid.device)
    return (positions[:, None] == wanted[:, None]) & valid[:, None]


def _flat(index: Tensor, valid: Tensor) -> Tensor:
    """Indices into the tokens of each text as indices into all tokens of a batch."""
    texts = torch.arange(valid.shape[0], device=index.device)[:, None]
    return (index + texts * valid.shape[1]).reshape(-1)


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
    return context.permute(1, 2, 0, 3).flatten(2)
