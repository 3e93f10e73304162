"""A pattern against the model that it is named after."""

from __future__ import annotations

import torch

import sparseattn as sa


def compiled(spec: str, tokens: sa.TokenBatch) -> torch.Tensor:
    """The plan's mask. Shape: [batch, 1, length, length]."""
    return sa.Plan.of(spec).compile(tokens, (1,)).layers[0].dense


def test_longformer_is_what_longformer_attends_to():
    """Which input tokens move which outputs of a one-layer Longformer."""
    from transformers import LongformerConfig, LongformerModel

    torch.manual_seed(0)
    radius, length = 2, 12
    config = LongformerConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        attention_window=2 * radius,
        max_position_embeddings=32,
    )
    model = LongformerModel(config).eval()
    embeds = torch.randn(1, length, 8, requires_grad=True)
    is_global = torch.zeros(1, length, dtype=torch.long)
    is_global[0, 0] = 1
    out = model(inputs_embeds=embeds, global_attention_mask=is_global).last_hidden_state
    moved = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        (gradient,) = torch.autograd.grad(out[0, query, 0], embeds, retain_graph=True)
        moved[query] = (gradient[0] != 0).any(dim=-1)
    assert torch.equal(
        compiled(f"longformer(radius={radius})", sa.TokenBatch.of_lengths(length))[0, 0], moved
    )
