"""Which pairs a head computed, and which rule of its pattern allows each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseattn.app.reader import PAIRS, Run
from sparseattn.causes import causes
from sparseattn.pattern import Pattern, rule_of
from sparseattn.plan import Plan

#: The bit of a pair that was computed; those below say by which causes.
EXECUTED = 1 << 7


def pattern_at(plan: Plan, heads: Sequence[int], layer: int, head: int) -> Pattern:
    """The pattern that a plan puts on a head."""
    groups = plan.resolve(list(heads))[layer]
    return next(pattern for members, pattern in groups if head in members)


def connections(
    run: Run, pattern: Pattern, layer: int, head: int, queries: Tensor, keys: Tensor
) -> Tensor:
    """The pairs that a head computed, with their causes.

    Args:
        run: The forward pass; a pair that it did not compute is 0, whatever the pattern says.
        pattern: The pattern of the head; says only why a pair is there.
        layer: Its layer.
        head: The head.
        queries: Indices. Shape: [queries], int64.
        keys: Indices. Shape: [keys], int64.

    Returns:
        Bits: `EXECUTED`, and one for each of `causes`. Shape: [queries, keys], uint8.
    """
    executed = run.layers[layer].allowed(queries, keys, [head])[0, 0]
    bits = executed.to(torch.uint8) * EXECUTED
    for at, cause in enumerate(causes(pattern)):
        for part in cause.patterns:
            allowed = rule_of(part, run.tokens, layer).allowed(queries, keys)[0]
            because = allowed[head if allowed.shape[0] > 1 else 0] & executed
            bits |= because.to(torch.uint8) << at
    return bits


def pooled(run: Run, pattern: Pattern, layer: int, head: int, side: int) -> Any:
    """The whole matrix of a long text at a glance: each entry joins the bits of a square of pairs.

    Shape: [side, side], uint8.
    """
    length = run.tokens.length
    step = -(-length // side)
    keys = torch.arange(length)
    whole = np.zeros((side, side), np.uint8)
    rows = max(1, PAIRS // (length * step))
    for top in range(0, side, rows):
        queries = keys[top * step : (top + rows) * step]
        bits = connections(run, pattern, layer, head, queries, keys).numpy()
        padded = np.pad(bits, ((0, -len(queries) % step), (0, side * step - length)))
        blocks = padded.reshape(-1, step, side, step)
        whole[top : top + len(blocks)] = np.bitwise_or.reduce(blocks, axis=(1, 3))
    return whole
