"""Every supported family, from tiny random configs."""

from __future__ import annotations

import copy

import pytest
import torch

import sparseattn as sa
from tests.models.families import FAMILIES, batch, build, run

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")

#: The others have no gradient checkpointing.
CHECKPOINTED = [family for family in FAMILIES if family not in ("albert", "markuplm", "mpnet")]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_full_pattern_equals_stock_model_and_restore_restores(family, side):
    model, inputs = build(family), batch(side=side)
    config, implementation = model.config.to_dict(), model.config._attn_implementation
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    stock = run(model, **inputs)
    sa.sparsify(model, "full()")
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(run(model, **inputs)[real], stock[real], atol=1e-6, rtol=0)
    sa.restore(model)
    assert torch.equal(run(model, **inputs), stock)
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == implementation
    assert hooks == sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_never_attended_to(family):
    model = build(family)
    sa.sparsify(model, "neighbor(radius=2) | global(cls)", layers="1:")
    padded = batch((23, 7))
    alone = {name: value[1:, :7] for name, value in padded.items()}
    together, single = run(model, **padded)[1:, :7], run(model, **alone)
    if family == "mobilebert":  # its embedding layer joins each token with its two neighbours
        together, single = together[:, :-1], single[:, :-1]
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_that_is_out_of_reach_changes_nothing(family):
    """With radius 1 on three layers, information travels three tokens and no further."""
    model, inputs = build(family).double(), batch((23,))
    sa.sparsify(model, "neighbor(radius=1)")
    before = run(model, **inputs)[0]
    ids = inputs["input_ids"].clone()
    ids[0, 12] = 91 if ids[0, 12] != 91 else 92
    changed = (run(model, **{**inputs, "input_ids": ids})[0] - before).abs().amax(dim=1) > 1e-13
    # A convolution in one and trigram embeddings in the other add a neighbour.
    reach = 3 + (family in ("deberta-v2", "mobilebert"))
    outside = [place for place in range(23) if abs(place - 12) > reach]
    assert not changed[outside].any()
    assert changed[12]
    assert changed[[12 - 3, 12 + 3]].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_have_masks_of_their_own(family):
    """Only head 2 of layer 1 may look back from the last token: silencing it must show."""
    model, inputs = build(family).double(), batch((23,))
    everything_but_one = {":": "full()", 1: {"0,1,3": "full()", "2": "neighbor(radius=0)"}}
    stock = run(model, **inputs)
    one_head = run(sa.sparsify(model, everything_but_one), **inputs)
    other_head = run(sa.sparsify(model, {1: {"1": "neighbor(radius=0)"}}), **inputs)
    assert (stock - one_head).abs().max() > 1e-12
    assert (one_head - other_head).abs().max() > 1e-12


@pytest.mark.parametrize("family", CHECKPOINTED)
def test_gradient_checkpointing_gives_the_same_gradients(family):
    plan = {0: "neighbor(radius=1)", 1: "neighbor(radius=3) | global(cls)"}
    grads = []
    for checkpointing in (False, True):
        model = build(family).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        sa.sparsify(model, plan)
        real = model(**batch()).last_hidden_state[batch()["attention_mask"].bool()]
        real.square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "modernbert"])
def test_equals_the_stock_model_given_the_mask(family):
    """An independent path: transformers passes a 4-D mask on to every layer untouched."""
    model = build(family, **({"local_attention": 400} if family == "modernbert" else {}))
    inputs = batch((23, 7))
    tokens = sa.TokenBatch.of_columns(inputs)
    mask = sa.Plan.of("neighbor(radius=3) | global(first=2)").compile(tokens, [4]).layers[0].finite
    added = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    stock = run(model, input_ids=inputs["input_ids"], attention_mask=added)
    ours = run(sa.sparsify(model, "neighbor(radius=3) | global(first=2)"), **inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[real], stock[real], atol=1e-5, rtol=1e-5)


def test_albert_carries_different_plans_at_different_depths():
    model, inputs = build("albert"), batch((23,))
    outputs = [
        run(sa.sparsify(model, {layer: "neighbor(radius=0)"}), **inputs) for layer in range(3)
    ]
    assert sa.describe(model, inputs).layers[0].sparsity == 0
    assert sa.describe(model, inputs).layers[2].sparsity > 0.9
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert not torch.allclose(outputs[1], outputs[2], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "albert", "mpnet", "t5-encoder"])
def test_a_deep_copy_is_sparsified_by_itself(family):
    model, inputs = build(family), batch((23,))
    sa.sparsify(model, "neighbor(radius=1)")
    twin = copy.deepcopy(model)
    expected = run(model, **inputs)
    sa.sparsify(model, "full()")
    assert torch.equal(run(twin, **inputs), expected)
