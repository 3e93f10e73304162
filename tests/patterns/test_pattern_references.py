"""Patterns against other people's masks: transformers, FlexAttention, and Longformer itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask
from transformers import masking_utils as theirs

import sparseattn as sa
from tests.patterns.batches import FIXED

LENGTH = 26
LENGTHS = (26, 11, 1)
RIGHT = sa.TokenBatch.of_lengths(*LENGTHS)
LEFT = sa.TokenBatch(RIGHT.valid.flip(1))


def compiled(spec: str, tokens: sa.TokenBatch) -> torch.Tensor:
    """The plan's mask. Shape: [batch, 1, length, length]."""
    return sa.Plan.of(spec).compile(tokens, (1,)).layers[0].dense


def through_transformers(mask_function: Callable, tokens: sa.TokenBatch) -> torch.Tensor:
    """The mask that transformers' SDPA path builds, with padding queries taken out."""
    mask = theirs.sdpa_mask(
        batch_size=tokens.batch,
        q_length=tokens.length,
        kv_length=tokens.length,
        mask_function=mask_function,
        attention_mask=tokens.valid,
        allow_is_causal_skip=False,
        allow_is_bidirectional_skip=False,
        use_vmap=True,
    )
    return mask & tokens.valid[:, None, :, None]


@pytest.mark.parametrize("tokens", [LEFT, RIGHT], ids=["left", "right"])
@pytest.mark.parametrize("radius", [0, 1, 5, 40])
def test_neighbor_is_transformers_bidirectional_window(radius, tokens):
    window = theirs.sliding_window_bidirectional_mask_function(radius)
    ours = compiled(f"neighbor({radius})", tokens)
    assert torch.equal(ours, through_transformers(window, tokens))


@pytest.mark.parametrize("tokens", [LEFT, RIGHT], ids=["left", "right"])
@pytest.mark.parametrize("radius", [0, 2])
def test_longformer_is_transformers_window_or_global(radius, tokens):
    first = tokens.valid.long().argmax(dim=1)

    def is_global(b, h, q, k):
        return (q == first[b]) | (k == first[b])

    window = theirs.sliding_window_bidirectional_overlay(radius)
    mask = through_transformers(theirs.or_masks(window, is_global), tokens)
    assert torch.equal(compiled(f"longformer({radius})", tokens), mask)


@pytest.mark.parametrize(("radius", "dilation"), [(1, 1), (2, 3), (3, 2), (50, 4)])
def test_dilated_is_a_flex_mask(radius, dilation):
    def mask_mod(b, h, q, k):
        return ((q - k).abs() <= radius * dilation) & ((q - k).remainder(dilation) == 0)

    drawn = create_mask(mask_mod, None, None, LENGTH, LENGTH, device="cpu")
    drawn = drawn & RIGHT.valid[:, None, :, None] & RIGHT.valid[:, None, None, :]
    assert torch.equal(compiled(f"dilated({radius}, {dilation})", RIGHT), drawn)


@pytest.mark.parametrize("tokens", [LEFT, RIGHT], ids=["left", "right"])
def test_block_is_transformers_chunks(tokens):
    padding = tokens.valid.long().argmax(dim=1)
    mask = through_transformers(theirs.chunked_overlay(4, padding), tokens)
    assert torch.equal(compiled("block(4)", tokens), mask)


@pytest.mark.parametrize("spec", ["sentence()", "same_word()"])
def test_sentences_and_words_are_transformers_blocks(spec):
    tokens = FIXED.tokens
    labels = tokens.sentences if spec == "sentence()" else tokens.words
    mask = through_transformers(theirs.blockwise_overlay(labels), tokens)
    own = torch.eye(tokens.length, dtype=torch.bool) & tokens.valid[:, None, :, None]
    assert torch.equal(compiled(spec, tokens), mask | own)


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
