"""The attentions that are timed, and the ways to compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import sparseattn as sa
from sparseattn.backend import Call, backend

__all__ = ["DENSE", "HEADS", "WIDTH", "Way", "call", "once", "way"]

HEADS, WIDTH = 12, 64
#: The name of SDPA without a mask; on a GPU its flash kernel.
DENSE = "dense"

#: A way to compute attention: a call to its context.
Way = Callable[[Call], Tensor]


def call(
    length: int,
    plan: object,
    texts: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Call:
    """An attention over `4096 / length` texts (or as many as asked for), laid out as in BERT."""
    texts = texts or max(1, 4096 // length)
    tokens = sa.TokenBatch(torch.ones(texts, length, dtype=torch.bool, device=device))
    rule = sa.Plan.of(plan).compile(tokens, [HEADS]).layers[0]
    generator = torch.Generator().manual_seed(0)
    shape = (texts, length, HEADS, WIDTH)
    q, k, v = (
        torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2) for _ in range(3)
    )
    return Call(q, k, v, rule, WIDTH**-0.5)


def way(name: str) -> Way:
    """A backend, or dense SDPA."""
    return _dense if name == DENSE else backend(name).attend


def _dense(one: Call) -> Tensor:
    states = one.query, one.key, one.value
    if one.query.device.type == "cpu":
        return scaled_dot_product_attention(*states, dropout_p=one.dropout, scale=one.scale)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(*states, dropout_p=one.dropout, scale=one.scale)


def once(attend: Way, one: Call, trains: bool) -> Callable[[], object]:
    """Attention alone, and its gradients for a gradient of the context that is there already."""
    leaves = [x.detach().requires_grad_(trains) for x in (one.query, one.key, one.value)]
    grad = torch.linspace(-1, 1, one.query.numel(), device=one.query.device)
    grad = grad.to(one.query.dtype).view_as(one.query.transpose(1, 2)).transpose(1, 2)
    mine = replace(one, query=leaves[0], key=leaves[1], value=leaves[2])

    def run() -> object:
        with torch.set_grad_enabled(trains):
            out = attend(mine)
            return torch.autograd.grad(out, leaves, grad) if trains else out

    return run
