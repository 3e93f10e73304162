"""Attention calls of the benchmarks, and their definition, which is compared before times count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import sparseattn as sa
from sparseattn.backend import Call

HEADS, WIDTH = 12, 64
#: Bytes that SDPA stores on a CPU for each score when it drops weights in training (measured).
SCORE_BYTES = 12.5
#: Computes the context of a call.
Attend = Callable[[Call], Tensor]


def make_call(
    length: int,
    plan: object,
    texts: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    width: int = WIDTH,
    tokens: sa.TokenBatch | None = None,
) -> Call:
    """An attention over `4096 / length` texts, or as many as given, laid out as in BERT."""
    texts = texts or max(1, 4096 // length)
    if tokens is None:
        tokens = sa.TokenBatch(torch.ones(texts, length, dtype=torch.bool, device=device))
    rule = sa.Plan.of(plan).compile(tokens, [HEADS]).layers[0]
    generator = torch.Generator().manual_seed(0)
    shape = (texts, length, HEADS, width)
    states = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
    q, k, v = (x.transpose(1, 2) for x in states)
    return Call(q, k, v, rule, width**-0.5)


def dense(call: Call) -> Tensor:
    """SDPA without a mask; on a GPU its flash kernel."""
    states = call.query, call.key, call.value
    if call.query.device.type == "cpu":
        return scaled_dot_product_attention(*states, dropout_p=call.dropout, scale=call.scale)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(*states, dropout_p=call.dropout, scale=call.scale)


def passes(attend: Attend, call: Call, trains: bool) -> Callable[[], object]:
    """Attention alone, and its gradients for a gradient of the context that is there already."""
    leaves = [x.detach().requires_grad_(trains) for x in (call.query, call.key, call.value)]
    grad = torch.linspace(-1, 1, call.query.numel(), device=call.query.device)
    grad = grad.to(call.query.dtype).view_as(call.query.transpose(1, 2)).transpose(1, 2)
    call = replace(call, query=leaves[0], key=leaves[1], value=leaves[2])

    def run() -> object:
        with torch.set_grad_enabled(trains):
            out = attend(call)
            return torch.autograd.grad(out, leaves, grad) if trains else out

    return run


# --- the definition

#: Largest difference, as a share of the largest number of its tensor. In bfloat16, which has 8
#: bits, weights and results are rounded to 0.4%, and gradients are sums of rounded differences.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
#: Queries of each text that are compared, and those of the smallest tile that a kernel computes.
ROWS, TILE = 64, 16


def check(name: str, attend: Attend, call: Call, gradients: bool = True) -> float:
    """Compares an attention with its definition in float64; ends the part where it differs.

    The loss weighs the contexts of some queries only. These define the gradients of all queries,
    keys and values, without a tensor of length x length. There is no padding and no dropout.

    Args:
        name: What is compared, for the message.
        attend: Computes it.
        call: What to compute.
        gradients: Whether to compare gradients, too, and not only contexts under `no_grad`.

    Returns:
        The largest difference of a tensor, as a share of the largest number in it.
    """
    rows = sampled(call.rule.length).to(call.query.device)
    # Rounded like the states: what is compared starts from the same numbers.
    shape = (*call.query.shape[:2], len(rows), call.query.shape[3])
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(call.query)
    results = _results(attend, call, rows, weights if gradients else None)
    sizes = []
    for head in range(call.rule.heads):
        expected = _expected(call, head, rows, weights[:, head])
        pairs = [(ours[:, head].double(), expected[kind]) for kind, ours in results]
        sizes.append([(float((a - b).abs().max()), float(b.abs().max())) for a, b in pairs])
    # `amax` does not lose NaN, as Python's `max` may.
    apart, largest = torch.tensor(sizes, dtype=torch.float64).amax(0).unbind(-1)
    worst, limit = float((apart / largest.clamp(min=1e-6)).amax()), LIMITS[call.query.dtype]
    if not worst < limit:
        where = f"{call.rule.length} tokens"
        sys.exit(f"{name} differs from the definition by {worst:.2g} at {where} ({limit:g})")
    return worst


def sampled(length: int) -> Tensor:
    """Queries at both ends, at both sides of borders of tiles, in a run across one, and others."""
    if length <= ROWS:
        return torch.arange(length)
    generator = torch.Generator().manual_seed(length)
    borders = torch.randint(1, -(-length // TILE), (TILE,), generator=generator) * TILE
    run = (borders[0] - TILE // 2 + torch.arange(TILE)).clamp(max=length - 1)
    others = torch.randint(length, (ROWS - 2 - 3 * TILE,), generator=generator)
    return torch.cat([torch.tensor([0, length - 1]), borders - 1, borders, run, others]).unique()


def _results(
    attend: Attend, call: Call, rows: Tensor, weights: Tensor | None
) -> list[tuple[str, Tensor]]:
    with torch.no_grad():
        results = [("context", attend(call)[:, :, rows])]
    if weights is None:
        return results
    leaves = [x.detach().requires_grad_() for x in (call.query, call.key, call.value)]
    context = attend(replace(call, query=leaves[0], key=leaves[1], value=leaves[2]))
    grad = torch.zeros_like(context).index_copy_(2, rows, weights)
    grads = torch.autograd.grad(context, leaves, grad)
    results.append(("context", context.detach()[:, :, rows]))
    return [*results, *zip(("query", "key", "value"), grads, strict=True)]


def _expected(call: Call, head: int, rows: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The definition for one head of all texts."""
    query, key, value = (
        x[:, head].detach().double().requires_grad_() for x in (call.query, call.key, call.value)
    )
    every = torch.arange(call.rule.length, device=rows.device)
    allowed = call.rule.allowed(rows, every, [head])[:, 0]
    scores = (query[:, rows] @ key.transpose(1, 2)) * call.scale
    context = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ value
    grads = torch.autograd.grad(context, (query, key, value), weights.double())
    return {"context": context.detach(), **dict(zip(("query", "key", "value"), grads, strict=True))}
