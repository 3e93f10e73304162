"""Families whose own attention is replaced, and relative positions as a number a distance."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetSelfAttention
from transformers.models.t5.modeling_t5 import T5Attention

import sparseattn as sa
from sparseattn.backend import DistanceBias
from sparseattn.errors import UnsupportedModelError
from tests.models.families import OWN, batch, build, run

PLAN = {
    0: "neighbor(radius=3) | global(cls)",
    1: {"0,2": "neighbor(radius=1) | random(degree=4)", "1": "random(degree=3)"},
}
BIASED = ["mpnet", "t5-encoder"]


def results(family, backend):
    """Outputs of real tokens, and all gradients, of a long batch in training."""
    model, inputs = build(family).double(), batch((150, 37))
    sa.sparsify(model, PLAN, backend=backend)
    out = model(**inputs).last_hidden_state[inputs["attention_mask"].bool()]
    out.square().sum().backward()
    chosen = {layer.backend for layer in sa.describe(model, inputs).layers}
    assert chosen == {backend}
    return out, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backend", ["masked", "tiled"])
@pytest.mark.parametrize("family", [*OWN, "t5-encoder"])
def test_every_backend_serves_them(family, backend):
    (expected, expected_grads), (out, grads) = (
        results(family, "reference"),
        results(family, backend),
    )
    torch.testing.assert_close(out, expected)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], msg=name)
    assert (family in BIASED) == any("relative_attention_bias" in name for name in grads)


@pytest.mark.parametrize("length", [1, 2, 50, 150])
@pytest.mark.parametrize("family", BIASED)
def test_a_number_a_distance_is_what_transformers_adds(family, length):
    model = build(family)
    if family == "mpnet":
        module, args = model.encoder, (torch.zeros(2, length, 32),)
        stock = MPNetEncoder.compute_position_bias(module, *args)[:1]
        name = "compute_position_bias"
    else:
        module, args = model.encoder.block[0].layer[0].SelfAttention, (length, length)
        stock, name = T5Attention.compute_bias(module, *args), "compute_bias"
    sa.sparsify(model, "full()")
    bias = getattr(module, name)(*args)
    assert isinstance(bias, DistanceBias)
    assert bias.values.shape == (4, 2 * length - 1)
    torch.testing.assert_close(bias.dense(), stock, atol=0, rtol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_relative_positions_learn_under_checkpointing(checkpointed):
    model = build("t5-encoder").train()
    if checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    sa.sparsify(model, "neighbor(radius=2)", backend="masked")
    model(**batch()).last_hidden_state.square().sum().backward()
    grad = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
    plain = build("t5-encoder").train()
    sa.sparsify(plain, "neighbor(radius=2)", backend="reference")
    plain(**batch()).last_hidden_state.square().sum().backward()
    expected = plain.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=1e-4)


def _another_scale(self, hidden_states, attention_mask=None, position_bias=None, **_):
    return (self.o(2 * self.v(hidden_states)),)


def _another_bias(self, x, position_ids=None, num_buckets=32):
    return self.relative_attention_bias.weight.sum().expand(1, 4, x.size(1), x.size(1))


@pytest.mark.parametrize(
    ("kind", "name", "changed"),
    [
        (MPNetSelfAttention, "forward", _another_scale),
        (MPNetSelfAttention, "forward", None),
        (MPNetEncoder, "compute_position_bias", _another_bias),
    ],
)
def test_another_version_of_transformers_is_an_error(kind, name, changed, monkeypatch):
    model = build("mpnet")
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    with monkeypatch.context() as patch:
        patch.setattr(kind, name, changed)
        with pytest.raises(
            UnsupportedModelError, match=rf"{kind.__name__}.{name} of transformers 5"
        ):
            sa.sparsify(model, "full()")
    assert sa.plan_of(model) is None
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names
    inputs = batch()
    expected = run(build("mpnet"), **inputs)
    assert torch.equal(run(model, **inputs), expected)
