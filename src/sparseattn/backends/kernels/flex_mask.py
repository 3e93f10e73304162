"""A layer's rule as a FlexAttention block mask, without a tensor of length x length.

The mask function is evaluated for every pair of a block, so it reads no more than the rule has:
a radius for each head and token and, where there are any, global tokens and padding. It reads them
from captured tensors: captured numbers would compile anew. Which blocks hold an allowed pair, and
which hold nothing else, comes from the same tensors, reduced to blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseattn.rules import AllPairs, Band, GlobalTokens, LayerRule

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True, eq=False)
class Windows:
    """What the mask function reads; None for what the rule does not have.

    Attributes:
        radius: Reach of each query in tokens. Shape: [batch or 1, heads or 1, length], int32.
        globals: Global tokens. Shape: [batch or 1, heads or 1, length], bool.
        valid: Real tokens. Shape: [batch, length], bool.
    """

    radius: Tensor
    globals: Tensor | None
    valid: Tensor | None


def refused(rule: LayerRule) -> str | None:
    """Why a rule does not fit the mask function, or None."""
    for _, shared in rule.groups:
        bands = [part for part in shared.parts if isinstance(part, Band)]
        fits = all(isinstance(part, Band | AllPairs | GlobalTokens) for part in shared.parts)
        if not fits or len(bands) > 1 or any(band.dilation > 1 for band in bands):
            return "it takes one window without gaps a head, and global tokens"
    return None


def bucket(length: int) -> int:
    """The length to compute for: a multiple of 128, above 1024 of an eighth of a power of two."""
    step = max(128, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def compiled_for(rule: LayerRule, length: int) -> tuple[int, int, bool, bool]:
    """What decides how the mask function of a rule, padded to `length` tokens, is compiled.

    Returns:
        Texts and heads that the rule tells apart (1 where it is the same for all), whether it has
        global tokens, and whether any token is padding.
    """
    parts = [part for _, shared in rule.groups for part in shared.parts]
    tensors = [getattr(part, name, None) for part in parts for name in ("radius", "tokens")]
    return (
        max([1, *(len(t) for t in tensors if isinstance(t, Tensor))]),
        1 if len(rule.groups) == 1 else rule.heads,
        any(isinstance(part, GlobalTokens) for part in parts),
        rule.padded or length > rule.length,
    )


def windows_of(rule: LayerRule, length: int) -> Windows:
    """Reads a rule, padded to `length` tokens."""
    texts, heads_apart, has_globals, padded = compiled_for(rule, length)
    shape = (texts, heads_apart, rule.length)
    radius = torch.zeros(shape, dtype=torch.int32, device=rule.valid.device)
    marked = torch.zeros(shape, dtype=torch.bool, device=rule.valid.device)
    for heads, shared in rule.groups:
        rows = list(heads) if heads_apart > 1 else [0]
        for part in shared.parts:
            if isinstance(part, GlobalTokens):
                marked[:, rows] |= part.tokens[:, None]
            elif isinstance(part, Band) and not shared.is_full:
                reach = torch.as_tensor(part.radius).clamp(max=rule.length).int().to(radius.device)
                radius[:, rows] = reach[:, None] if reach.dim() else reach
        if shared.is_full:
            radius[:, rows] = rule.length
    more = (0, length - rule.length)
    return Windows(
        radius=pad(radius, more),
        globals=pad(marked, more) if has_globals else None,
        valid=pad(rule.valid, more) if padded else None,
    )


def blocks_of(windows: Windows, size: int, full: bool) -> Tensor:
    """Which blocks may hold an allowed pair, or, if `full`, hold nothing else.

    Of a full block the window allows every pair, or its queries or keys are all global.

    Returns:
        Shape: [batch or 1, heads or 1, blocks, blocks], bool.
    """
    decide: Callable[[Tensor, int], Tensor] = torch.all if full else torch.any
    place = torch.arange(windows.radius.shape[-1] // size, device=windows.radius.device)
    apart, radius = (place[:, None] - place).abs(), _blocks(windows.radius, size)
    if full:  # the farthest two tokens, and the nearest two
        distance, reach = (apart + 1) * size - 1, radius.amin(3)
    else:
        distance, reach = (apart - 1).clamp(min=0) * size + (apart > 0), radius.amax(3)
    blocks = distance <= reach[..., None]
    if windows.globals is not None:
        marked = decide(_blocks(windows.globals, size), 3)
        blocks = blocks | marked[..., :, None] | marked[..., None, :]
    if windows.valid is not None:
        real = decide(_blocks(windows.valid[:, None], size), 3)
        blocks = blocks & real[..., :, None] & real[..., None, :]
    return blocks


def _blocks(tensor: Tensor, size: int) -> Tensor:
    """Shape: [batch or 1, heads or 1, blocks, size]."""
    return tensor.reshape(*tensor.shape[:2], -1, size)


def block_mask(windows: Windows, size: int) -> BlockMask:
    """The block mask, for blocks of `size` x `size`."""
    from torch.nn.attention.flex_attention import BlockMask  # loads the compiler: only on use

    radius, marked, valid = windows.radius, windows.globals, windows.valid

    # What is None, or one for all texts or heads, is left out when this is compiled.
    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row = b if radius.shape[0] > 1 else 0
        head = h if radius.shape[1] > 1 else 0
        pair = (q - k).abs() <= radius[row, head, q]
        if marked is not None:
            pair = pair | marked[row, head, q] | marked[row, head, k]
        if valid is not None:
            pair = pair & valid[b, q] & valid[b, k]
        return pair

    full = blocks_of(windows, size, full=True)
    some = blocks_of(windows, size, full=False) & ~full
    return BlockMask.from_kv_blocks(
        *_listed(some), *_listed(full.expand_as(some)), BLOCK_SIZE=size, mask_mod=allowed
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and their places before all others."""
    order = torch.argsort((~blocks).to(torch.int8), dim=-1, stable=True).int()
    return blocks.sum(-1, dtype=torch.int32).contiguous(), order.contiguous()
