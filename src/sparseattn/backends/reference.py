"""The definition, in plain tensor operations: the oracle of every test."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sparseattn.backend import Backend, Call


class Reference(Backend):
    """Builds every score, masks, normalises and sums. Any dtype, float64 included."""

    name: ClassVar[str] = "reference"
    summary: ClassVar[str] = "the definition in plain tensor operations; any dtype, for checking"

    def attend(self, call: Call) -> Tensor:
        scores = call.query @ call.key.transpose(-2, -1) * call.scale
        if (bias := call.dense_bias) is not None:
            scores = scores + bias
        allowed = call.rule.dense
        scores = scores.masked_fill(~allowed, float("-inf"))
        empty = ~allowed.any(dim=-1, keepdim=True)
        # A row of -inf has no softmax: give it any finite scores, then take its weights away.
        weights = scores.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)
        weights = torch.nn.functional.dropout(weights, call.dropout, training=call.dropout > 0)
        return (weights @ call.value).to(call.query.dtype)
