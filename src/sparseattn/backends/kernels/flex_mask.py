"""A layer's rule as a FlexAttention block mask, without a tensor of length x length.

The mask function is evaluated for every pair of a block, so that it asks for no more than the rule
has: a radius for each head and token, and where there are any, steps, labels, global tokens and
padding. It reads them from captured tensors (captured numbers would compile anew), and each `Kind`
is compiled by itself. Which blocks of keys a block of queries needs, and in which of them every
pair is allowed, so that nothing is asked there, comes from the same tensors, reduced to blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

from sparseattn.rules import AllPairs, Band, GlobalTokens, LayerRule, Part, Rule, SameLabel

__all__ = [
    "Kind",
    "Structure",
    "block_mask",
    "bucket",
    "filled",
    "kind",
    "needed",
    "structure",
    "unstructured",
]


@dataclass(frozen=True)
class Kind:
    """What a rule has, which decides what its mask function reads.

    Attributes:
        texts: Texts that it tells apart: 1 where it is the same for all, padding aside.
        heads: Heads that it tells apart: 1 where it is the same for all.
        dilated: Whether any window has gaps.
        labelled: Whether it has labels.
        marked: Whether it has global tokens.
        padded: Whether any token is padding, up to the length that is computed.
    """

    texts: int
    heads: int
    dilated: bool
    labelled: bool
    marked: bool
    padded: bool


@dataclass(frozen=True, eq=False)
class Structure:
    """What the mask function reads; None for what the rule does not have.

    Attributes:
        radius: Reach of each query in tokens. Shape: [batch or 1, heads or 1, length], int32.
        step: Distances must be multiples of it. Shape: [heads or 1], int32.
        label: Tokens of the same label, 0 or above, see each other.
            Shape: [batch or 1, heads or 1, length], int32.
        marked: Global tokens. Shape: [batch or 1, heads or 1, length], bool.
        valid: Real tokens. Shape: [batch, length], bool.
    """

    radius: Tensor
    step: Tensor | None
    label: Tensor | None
    marked: Tensor | None
    valid: Tensor | None


def unstructured(rule: LayerRule) -> str | None:
    """Why a rule does not fit the mask function, or None."""
    for _, shared in rule.groups:
        kinds = [type(part) for part in shared.parts]
        odd = [k.__name__ for k in kinds if k not in (Band, AllPairs, SameLabel, GlobalTokens)]
        if odd:
            return f"it takes windows, blocks and global tokens, not {', '.join(odd)}"
        if kinds.count(Band) > 1 or kinds.count(SameLabel) > 1:
            return "it takes one window and one partition into blocks a head, not several"
    return None


def bucket(length: int) -> int:
    """The length to compute for: a multiple of 128, above 1024 of an eighth of a power of two."""
    step = max(128, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def kind(rule: LayerRule, length: int) -> Kind:
    """What a rule has, padded to `length` tokens."""
    parts = [part for _, shared in rule.groups for part in _parts(shared)]
    bands = [part for part in parts if isinstance(part, Band)]
    return Kind(
        texts=max([1, *(len(tensor) for part in parts for tensor in _tensors(part))]),
        heads=1 if len(rule.groups) == 1 else rule.heads,
        dilated=any(band.dilation > 1 for band in bands),
        labelled=any(isinstance(part, SameLabel) for part in parts),
        marked=any(isinstance(part, GlobalTokens) for part in parts),
        padded=rule.padded or length > rule.length,
    )


def _parts(shared: Rule) -> tuple[Part, ...]:
    """The parts of a rule; beside every pair no other counts."""
    return (AllPairs(),) if shared.is_full else shared.parts


def _tensors(part: Part) -> list[Tensor]:
    found = [getattr(part, name, None) for name in ("radius", "labels", "tokens")]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


def structure(rule: LayerRule, length: int) -> Structure:
    """Reads a rule, padded to `length` tokens."""
    has, device = kind(rule, length), rule.valid.device
    shape = (has.texts, has.heads, rule.length)
    radius = torch.zeros(shape, dtype=torch.int32, device=device)
    step = torch.ones(has.heads, dtype=torch.int32, device=device)
    label = torch.full(shape, -1, dtype=torch.int32, device=device)
    marked = torch.zeros(shape, dtype=torch.bool, device=device)
    for heads, shared in rule.groups:
        mine = list(heads) if has.heads > 1 else [0]
        for part in _parts(shared):
            if isinstance(part, AllPairs):
                radius[:, mine] = rule.length
            elif isinstance(part, Band):
                reach = part.radius
                reach = reach.clamp(max=rule.length) if isinstance(reach, Tensor) else reach
                reach = min(reach, rule.length) if isinstance(reach, int) else reach[:, None].int()
                radius[:, mine], step[mine] = reach * part.dilation, part.dilation
            elif isinstance(part, SameLabel):
                label[:, mine] = part.labels[:, None].int()
            elif isinstance(part, GlobalTokens):
                marked[:, mine] |= part.tokens[:, None]
    more = (0, length - rule.length)
    return Structure(
        radius=pad(radius, more),
        step=step if has.dilated else None,
        label=pad(label, more, value=-1) if has.labelled else None,
        marked=pad(marked, more) if has.marked else None,
        valid=pad(rule.valid, more) if has.padded else None,
    )


def needed(s: Structure, size: int) -> Tensor:
    """Which blocks may hold an allowed pair.

    Returns:
        Shape: [batch or 1, heads or 1, blocks, blocks], bool.
    """
    apart = _apart(s, size)
    gap = (apart - 1).clamp(min=0) * size + (apart > 0)
    found = gap <= _blocks(s.radius, size).amax(3)[..., None]
    if s.marked is not None:
        some = _blocks(s.marked, size).any(3)
        found = found | some[..., :, None] | some[..., None, :]
    if s.label is not None:
        # Blocks whose ranges of labels meet may share one; a superset of those that do.
        low, high = _range(s.label, size)
        meet = (low[..., :, None] <= high[..., None, :]) & (low[..., None, :] <= high[..., :, None])
        found = found | (meet & (high >= 0)[..., None])
    if s.valid is not None:
        found = found & _pairs(_blocks(s.valid[:, None], size).any(3))
    return found


def filled(s: Structure, size: int) -> Tensor:
    """Blocks of which one part of the rule allows every pair.

    Returns:
        Shape: [batch or 1, heads or 1, blocks, blocks], bool.
    """
    farthest = (_apart(s, size) + 1) * size - 1
    found = farthest <= _blocks(s.radius, size).amin(3)[..., None]
    if s.step is not None:
        found = found & (s.step == 1)[:, None, None]
    if s.marked is not None:
        every = _blocks(s.marked, size).all(3)
        found = found | every[..., :, None] | every[..., None, :]
    if s.label is not None:
        low, high = _range(s.label, size)
        one = torch.where((low == high) & (_blocks(s.label, size) >= 0).all(3), high, -1)
        found = found | ((one[..., :, None] == one[..., None, :]) & (one >= 0)[..., None])
    if s.valid is not None:
        found = found & _pairs(_blocks(s.valid[:, None], size).all(3))
    return found


def _pairs(blocks: Tensor) -> Tensor:
    """Pairs of which both blocks are meant. Shape: [batch or 1, heads or 1, blocks, blocks]."""
    return blocks[..., :, None] & blocks[..., None, :]


def _apart(s: Structure, size: int) -> Tensor:
    """How many blocks lie between the beginnings of two. Shape: [blocks, blocks]."""
    place = torch.arange(s.radius.shape[-1] // size, device=s.radius.device)
    return (place[:, None] - place).abs()


def _blocks(tensor: Tensor, size: int) -> Tensor:
    """Shape: [batch or 1, heads or 1, blocks, size]."""
    return tensor.reshape(*tensor.shape[:2], -1, size)


def _range(label: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest label of each block. Shape: [batch or 1, heads or 1, blocks]."""
    label = _blocks(label, size)
    return label.masked_fill(label < 0, 1 << 30).amin(3), label.amax(3)


def block_mask(s: Structure, size: int) -> BlockMask:
    """The block mask of a structure, for blocks of `size` x `size`."""
    from torch.nn.attention.flex_attention import BlockMask  # loads the compiler: only on use

    radius, step, label, marked, valid = s.radius, s.step, s.label, s.marked, s.valid

    # What is None, or one for all texts or heads, is left out when this is compiled.
    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        row = b if radius.shape[0] > 1 else 0
        head = h if radius.shape[1] > 1 else 0
        apart = (q - k).abs()
        found = apart <= radius[row, head, q]
        if step is not None:
            found = found & (apart % step[head] == 0)
        if label is not None:
            mine = label[row, head, q]
            found = found | ((mine == label[row, head, k]) & (mine >= 0))
        if marked is not None:
            found = found | marked[row, head, q] | marked[row, head, k]
        if valid is not None:
            found = found & valid[b, q] & valid[b, k]
        return found

    full = filled(s, size)
    some = needed(s, size) & ~full
    return BlockMask.from_kv_blocks(
        *_listed(some), *_listed(full.expand_as(some)), BLOCK_SIZE=size, mask_mod=allowed
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and their places before all others."""
    order = torch.argsort((~blocks).to(torch.int8), dim=-1, stable=True).int()
    return blocks.sum(-1, dtype=torch.int32).contiguous(), order.contiguous()
