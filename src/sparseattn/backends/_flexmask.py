"""A layer's rule as a FlexAttention block mask, without a tensor of length x length.

One mask function serves every rule: it reads a radius, a step, a label and a global flag for each
head and token from captured tensors (captured numbers would compile anew). Which blocks of keys a
block of queries needs comes from the same tensors, reduced to blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

from sparseattn.rules import Band, Full, LayerRule, Rule, Same, Strips

__all__ = ["Structure", "block_mask", "bucket", "needed", "rows", "structure", "unstructured"]


@dataclass(frozen=True, eq=False)
class Structure:
    """What the mask function reads.

    Attributes:
        radius: Reach of each query in tokens. Shape: [batch or 1, heads, length], int32.
        step: Distances must be multiples of it. Shape: [heads], int32.
        label: Tokens of the same label, 0 or above, see each other.
            Shape: [batch or 1, heads, length], int32.
        marked: Global tokens. Shape: [batch or 1, heads, length], bool.
        valid: Real tokens. Shape: [batch, length], bool.
    """

    radius: Tensor
    step: Tensor
    label: Tensor
    marked: Tensor
    valid: Tensor


def unstructured(rule: LayerRule) -> str | None:
    """Why a rule does not fit the mask function, or None."""
    for _, shared in rule.groups:
        kinds = [type(part) for part in shared.parts]
        odd = [k.__name__ for k in kinds if k not in (Band, Full, Same, Strips)]
        if odd:
            return f"it takes windows, blocks and global tokens, not {', '.join(odd)}"
        if kinds.count(Band) > 1 or kinds.count(Same) > 1:
            return "it takes one window and one partition into blocks a head, not several"
    return None


def bucket(length: int) -> int:
    """The length to compute for: a multiple of 128, above 1024 of an eighth of a power of two."""
    step = max(128, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def rows(rule: LayerRule) -> int:
    """Texts that a rule tells apart: 1 where it is the same for all, padding aside."""
    return max([1, *(len(t) for _, shared in rule.groups for t in _tensors(shared))])


def structure(rule: LayerRule, length: int) -> Structure:
    """Reads a rule, padded to `length` tokens."""
    device = rule.valid.device
    shape = (rows(rule), rule.heads, rule.length)
    radius = torch.zeros(shape, dtype=torch.int32, device=device)
    label = torch.full(shape, -1, dtype=torch.int32, device=device)
    marked = torch.zeros(shape, dtype=torch.bool, device=device)
    step = torch.ones(rule.heads, dtype=torch.int32, device=device)
    for heads, shared in rule.groups:
        mine = list(heads)
        for part in shared.parts:
            if isinstance(part, Full):
                radius[:, mine], step[mine] = rule.length, 1
                break
            if isinstance(part, Band):
                reach = part.radius
                reach = reach.clamp(max=rule.length) if isinstance(reach, Tensor) else reach
                reach = min(reach, rule.length) if isinstance(reach, int) else reach[:, None].int()
                radius[:, mine], step[mine] = reach * part.dilation, part.dilation
            elif isinstance(part, Same):
                label[:, mine] = part.labels[:, None].int()
            elif isinstance(part, Strips):
                marked[:, mine] |= part.tokens[:, None]
    more = (0, length - rule.length)
    return Structure(
        pad(radius, more),
        step,
        pad(label, more, value=-1),
        pad(marked, more),
        pad(rule.valid, more),
    )


def _tensors(shared: Rule) -> list[Tensor]:
    found = [getattr(part, name, None) for part in shared.parts for name in _FIELDS]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


_FIELDS = ("radius", "labels", "tokens")


def needed(s: Structure, size: int) -> Tensor:
    """Which blocks hold an allowed pair, padding not considered.

    Returns:
        Shape: [batch or 1, heads, blocks, blocks], bool.
    """
    blocks = s.radius.shape[-1] // size
    place = torch.arange(blocks, device=s.radius.device)
    gap = ((place[:, None] - place).abs() - 1).clamp(min=0) * size + (place[:, None] != place)
    found = gap <= _blocks(s.radius, size).amax(3)[..., None]
    some = _blocks(s.marked, size).any(3)
    found = found | some[..., :, None] | some[..., None, :]
    # Blocks whose ranges of labels meet may share one; a superset of those that do.
    label = _blocks(s.label, size)
    high, low = label.amax(3), label.masked_fill(label < 0, 1 << 30).amin(3)
    meet = (low[..., :, None] <= high[..., None, :]) & (low[..., None, :] <= high[..., :, None])
    return found | (meet & (high >= 0)[..., None])


def _blocks(tensor: Tensor, size: int) -> Tensor:
    """Shape: [batch, heads, blocks, size]."""
    return tensor.reshape(*tensor.shape[:2], -1, size)


def block_mask(s: Structure, size: int) -> BlockMask:
    """The block mask of a structure, for blocks of `size` x `size`."""
    from torch.nn.attention.flex_attention import BlockMask  # loads the compiler: only on use

    radius, step, label, marked, valid = s.radius, s.step, s.label, s.marked, s.valid
    text = torch.arange(len(valid), device=valid.device) % len(radius)

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row = text[b]
        apart = (q - k).abs()
        near = (apart <= radius[row, h, q]) & (apart % step[h] == 0)
        same = (label[row, h, q] == label[row, h, k]) & (label[row, h, q] >= 0)
        wide = marked[row, h, q] | marked[row, h, k]
        return (near | same | wide) & valid[b, q] & valid[b, k]

    wanted = needed(s, size).expand(len(valid), -1, -1, -1)
    count = wanted.sum(-1, dtype=torch.int32)
    order = torch.argsort((~wanted).to(torch.int8), dim=-1, stable=True).int()
    return BlockMask.from_kv_blocks(
        count.contiguous(), order.contiguous(), BLOCK_SIZE=size, mask_mod=allowed
    )
