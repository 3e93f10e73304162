"""PyTorch's scaled dot-product attention with a mask: any pattern, no speed-up."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.backend import Backend, Call
from sparseattn.backends.kernels.rule_cache import RuleCache
from sparseattn.rules import LayerRule

_MASKS: RuleCache[Tensor] = RuleCache(Tensor.numel)


class Masked(Backend):
    """Computes every score and discards what is not allowed."""

    name: ClassVar[str] = "masked"
    summary: ClassVar[str] = "SDPA with a boolean mask; every pattern and device, no speed-up"

    def attend(self, call: Call) -> Tensor:
        rule = call.rule
        mask: Tensor | None = None
        if (bias := call.dense_bias) is not None:
            mask = bias.to(call.query.dtype).masked_fill(~_mask(rule), float("-inf"))
        elif rule.padded or not rule.is_full:
            mask = _mask(rule)
        context = scaled_dot_product_attention(
            call.query,
            call.key,
            call.value,
            attn_mask=mask,
            dropout_p=call.dropout,
            scale=call.scale,
        )
        if not rule.padded:
            return context
        # A padding query is the only one with nothing allowed: `finite` let it see everything.
        return context.masked_fill(~rule.valid[:, None, :, None], 0.0)


def _mask(rule: LayerRule) -> Tensor:
    """`LayerRule.finite`, from a batch before where it is the same."""
    # A compiler traces how the mask is built, and could not trace a look-up.
    if torch.compiler.is_compiling():
        return rule.finite
    return _MASKS.get(rule, None, lambda: rule.finite)
