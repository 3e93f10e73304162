"""FlexAttention as its users write it, without this library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from calls import Way
from sparseattn.backend import Call

__all__ = ["raw"]

#: Tokens a block on a CPU.
BLOCK = 32


def raw(length: int, radius: int) -> Way:
    """Compiled FlexAttention under a window; its block mask is made here, once."""
    from torch.nn.attention.flex_attention import create_block_mask

    def near(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() <= radius

    mask = create_block_mask(near, None, None, length, length, device="cpu", BLOCK_SIZE=BLOCK)

    def attend(one: Call) -> Tensor:
        return _compiled()(one.query, one.key, one.value, block_mask=mask, scale=one.scale)

    return attend


@cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # `fullgraph` changes nothing but this: where it cannot be compiled it fails, and does not run
    # its dense form without a word.
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)
