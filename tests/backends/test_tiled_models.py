"""The tiled backend inside whole models, and what else the conformance suite leaves open."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sparseattn as sa
from sparseattn.backend import backend
from sparseattn.backends import tiled
from sparseattn.backends.kernels.cpu import launch
from tests.backends.test_conformance import HEADS, case, gradients, in_double
from tests.models.families import batch, build

PLAN = "neighbor(radius=3) | global(cls)"


def trained(model, inputs):
    """A loss that looks at every real token, and the gradients of all parameters."""
    torch.manual_seed(3)
    states = model(**inputs).last_hidden_state.float()
    loss = (states * inputs["attention_mask"][..., None]).square().mean()
    loss.backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return states.detach(), grads


def near(ours, theirs, tolerance):
    torch.testing.assert_close(ours[0], theirs[0], atol=tolerance, rtol=tolerance)
    scale = max(float(grad.abs().max()) for grad in theirs[1])
    for grad, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(grad, other, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize(("family", "name"), [("bert", "auto"), ("mpnet", "masked")])
def test_a_compiled_model(family, name):
    """Compiled once: the plans of further batches make no further graphs."""
    model = sa.sparsify(build(family, num_hidden_layers=1), PLAN, backend=name)
    torch._dynamo.reset()
    graphs = []
    compiled = torch.compile(model, backend=lambda graph, _: graphs.append(1) or graph.forward)
    counts = []
    for lengths in ((40, 9), (40, 20), (33, 20), (29, 3)):
        inputs = batch(lengths)
        near(trained(compiled, inputs), trained(model, inputs), 1e-5)
        counts.append(len(graphs))
    assert counts[0] == counts[1] > 0
    assert counts[2] == counts[3] <= 2 * counts[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_model_with_generated_code(family):
    """As above, with PyTorch's own code generation around the backend."""
    model = sa.sparsify(build(family), PLAN, backend="tiled")
    torch._dynamo.reset()
    compiled = torch.compile(model)
    for lengths in ((40, 9), (40, 20), (33, 20)):
        near(trained(compiled, batch(lengths)), trained(model, batch(lengths)), 1e-4)


@pytest.mark.parametrize("path", ["kernel", "portable"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_checkpointed_model_repeats_its_dropout(dropout, path, monkeypatch):
    if path == "portable":
        monkeypatch.setattr(launch, "missing", lambda *_: "switched off")
        monkeypatch.setattr(tiled, "_warn", lambda _: None)
    model = build("bert", attention_probs_dropout_prob=dropout).train()
    sa.sparsify(model, PLAN, backend="tiled")
    expected = trained(model, batch((40, 9)))
    model.activation_checkpointing_enable({"use_reentrant": False})
    near(trained(model, batch((40, 9))), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 33, 130])
def test_gradients_in_lower_precision(length, dtype):
    call = case("bigbird(4, 2)", length, dtype=dtype)
    _, grads = gradients(backend("tiled"), call)
    _, expected = gradients(backend("reference"), in_double(call))
    for grad, exact in zip(grads, expected, strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.double(), exact, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("turn", ["expanded", "transposed", "strided"])
def test_gradients_that_arrive_in_other_layouts(turn):
    call = case(PLAN, 50)
    seen = {
        "expanded": torch.ones((), dtype=torch.float64).expand(call.query.shape),
        "transposed": torch.randn(2, HEADS, 16, 50, dtype=torch.float64).transpose(2, 3),
        "strided": torch.randn(2, HEADS, 50, 32, dtype=torch.float64)[..., ::2],
    }[turn]
    results = []
    for name in ("tiled", "reference"):
        states = [torch.stack([x, -x], -1)[..., 0] for x in (call.query, call.key, call.value)]
        q, k, v = (x.requires_grad_() for x in states)
        assert not q.is_contiguous()
        out = backend(name).attend(replace(call, query=q, key=k, value=v))
        results.append(torch.autograd.grad(out, (q, k, v), seen))
    torch.testing.assert_close(*results)


def test_gradcheck_of_mixed_heads_and_irregular_radii():
    plan = {
        0: {
            "0": "neighbor(radius=0)",
            "1": "irregular(radii=[0, 2, 7], weights=[2, 1, 1])",
            "2:": "full()",
        }
    }
    call = case(plan, 19)
    leaves = [x[..., :2].clone().requires_grad_() for x in (call.query, call.key, call.value)]
    rule = case(plan, 19, "none").rule

    def attend(q, k, v):
        return backend("tiled").attend(replace(call, query=q, key=k, value=v, rule=rule))

    assert torch.autograd.gradcheck(attend, leaves, fast_mode=True)
