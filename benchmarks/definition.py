"""Compares an attention with its definition, at any length and in full, before it is timed.

Some queries of each text are drawn: its ends, both sides of borders of tiles, a run across one, and
others. Their scores with every key are computed in float64 by plain operations. The loss weighs the
contexts of these queries only, so that they also define the gradients of all queries, keys and
values of all texts and heads, without a tensor of length x length. There is no padding and no
dropout.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from calls import Way
from sparseattn.backend import Call

__all__ = ["LIMITS", "check", "drawn"]

#: Largest difference, as a share of the largest number of its tensor. In bfloat16, which keeps 8
#: bits, weights and results are rounded to 0.4%, and gradients are sums of rounded differences.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
#: Queries drawn of each text, and those of the smallest tile that a kernel computes.
ROWS, TILE = 64, 16


def check(name: str, attend: Way, one: Call, gradients: bool = True) -> float:
    """Compares; ends the part where the difference is too large.

    Args:
        name: What is compared, for the message.
        attend: Computes it.
        one: What to compute.
        gradients: Whether to compare gradients, too, and not only contexts under `no_grad`.

    Returns:
        The largest difference of a tensor, as a share of the largest number in it.
    """
    rows = drawn(one.rule.length).to(one.query.device)
    # Rounded like the states: what is compared starts from the same numbers.
    shape = (*one.query.shape[:2], len(rows), one.query.shape[3])
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(shape, generator=draw).to(one.query)
    found = _found(attend, one, rows, weights if gradients else None)
    sizes = []
    for head in range(one.rule.heads):
        wanted = _wanted(one, head, rows, weights[:, head])
        pairs = [(ours[:, head].double(), wanted[kind]) for kind, ours in found]
        sizes.append([(float((a - b).abs().max()), float(b.abs().max())) for a, b in pairs])
    # `amax` keeps what is no number, which Python's `max` may lose.
    apart, largest = torch.tensor(sizes, dtype=torch.float64).amax(0).unbind(-1)
    worst, limit = float((apart / largest.clamp(min=1e-6)).amax()), LIMITS[one.query.dtype]
    if not worst < limit:
        where = f"{one.rule.length} tokens"
        sys.exit(f"{name} differs from the definition by {worst:.2g} at {where} ({limit:g})")
    return worst


def drawn(length: int) -> Tensor:
    """The queries of each text to look at, at most `ROWS`, in order."""
    if length <= ROWS:
        return torch.arange(length)
    draw = torch.Generator().manual_seed(length)
    borders = torch.randint(1, -(-length // TILE), (TILE,), generator=draw) * TILE
    run = (borders[0] - TILE // 2 + torch.arange(TILE)).clamp(max=length - 1)
    ends, others = torch.tensor([0, length - 1]), ROWS - 2 - 3 * TILE
    some = torch.randint(length, (others,), generator=draw)
    return torch.cat([ends, borders - 1, borders, run, some]).unique()


def _found(
    attend: Way, one: Call, rows: Tensor, weights: Tensor | None
) -> Sequence[tuple[str, Tensor]]:
    with torch.no_grad():
        found = [("context", attend(one)[:, :, rows])]
    if weights is None:
        return found
    leaves = [x.detach().requires_grad_() for x in (one.query, one.key, one.value)]
    context = attend(replace(one, query=leaves[0], key=leaves[1], value=leaves[2]))
    grad = torch.zeros_like(context).index_copy_(2, rows, weights)
    grads = torch.autograd.grad(context, leaves, grad)
    found.append(("context", context.detach()[:, :, rows]))
    return [*found, *zip(("query", "key", "value"), grads, strict=True)]


def _wanted(one: Call, head: int, rows: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The definition for one head of all texts."""
    query, key, value = (
        x[:, head].detach().double().requires_grad_() for x in (one.query, one.key, one.value)
    )
    every = torch.arange(one.rule.length, device=rows.device)
    allowed = one.rule.allowed(rows, every, [head])[:, 0]
    scores = (query[:, rows] @ key.transpose(1, 2)) * one.scale
    context = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ value
    grads = torch.autograd.grad(context, (query, key, value), weights.double())
    return {"context": context.detach(), **dict(zip(("query", "key", "value"), grads, strict=True))}
