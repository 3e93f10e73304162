"""PyTorch's scaled dot-product attention with a mask: any pattern, no speed-up."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.backends.base import Backend, Call
from sparseattn.rules import LayerRule


class Masked(Backend):
    """Computes every score and discards what is not allowed."""

    name: ClassVar[str] = "masked"
    summary: ClassVar[str] = "SDPA with a boolean mask; every pattern and device, no speed-up"

    def attend(self, call: Call) -> Tensor:
        """See `Backend.attend`."""
        rule = call.rule
        mask: Tensor | None = None
        if call.bias is not None:
            mask = call.bias.to(call.query.dtype).masked_fill(~rule.finite, float("-inf"))
        elif rule.padded or not rule.is_full:
            mask = rule.finite
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

    def computed(self, rule: LayerRule) -> int:
        """See `Backend.computed`: every pair, padding included."""
        return len(rule.valid) * rule.heads * rule.length**2
