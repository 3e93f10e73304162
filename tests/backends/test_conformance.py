"""Every discovered backend against the definition in float64: forward and gradients."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import sparseattn as sa
from sparseattn.auto import select
from sparseattn.backend import Backend, Call, DistanceBias, backend, backends
from sparseattn.errors import BackendError, PatternError
from sparseattn.rules import (
    Band,
    Both,
    GlobalTokens,
    Keys,
    LayerRule,
    Pairs,
    Product,
    Rule,
    SameLabel,
)

#: PyTorch's compiler warns of PyTorch when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")

#: Lengths, each with a place of its padding: single tokens, and both sides of blocks of 64 and 128.
SHAPES = [(1, "none"), (2, "left"), (7, "right"), (63, "left"), (130, "none"), (130, "right")]
HEADS = 4
PLANS = {
    "window": "neighbor(radius=3)",
    "window and global": "neighbor(radius=1) | global(cls)",
    "wider than the text": "neighbor(radius=500)",
    "random": "random(degree=3)",
    "mix": "bigbird(radius=1, random=2, globals=[cls])",
    "dense": "full()",
    "difference": "block(size=4) - neighbor(radius=1)",
    "rows and columns": "neighbor(1) | global(cls, columns=false) | global(first=9, rows=false)",
    "mixed heads": {
        0: {"0": "neighbor(radius=0)", "1": "neighbor(radius=9)", "2": "strided(stride=3)"}
    },
}  # fmt: skip
#: FlexAttention compiles each shape anew, which takes many seconds.
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name == "flex" else name for name in backends
]
#: Those that are held to the reference.
OTHERS = [name for name in NAMES if name != "reference"]


def case(plan, length, padding="right", dtype=torch.float64, seed=0, device="cpu"):
    """A call over two texts, the second one shorter and padded."""
    short = max(1, length // 2)
    tokens = sa.TokenBatch.of_lengths(length, short)
    if padding == "left":
        tokens = sa.TokenBatch(tokens.valid.flip(1))
    if padding == "none":
        tokens = sa.TokenBatch.of_lengths(length, length)
    tokens = sa.TokenBatch(tokens.valid.to(device))
    rule = sa.Plan.of(plan).compile(tokens, [HEADS]).layers[0]
    generator = torch.Generator().manual_seed(seed)
    shape = (2, HEADS, length, 16)
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3))
    return Call(q, k, v, rule, scale=0.25)


def by_hand(call):
    """A loop over every query and key: no tensor operation shared with any backend."""
    q, k, v = (x.tolist() for x in (call.query, call.key, call.value))
    allowed = call.rule.dense.expand(-1, call.rule.heads, -1, -1).tolist()
    bias = None if call.bias is None else call.bias.expand(2, HEADS, -1, -1).tolist()
    out = torch.zeros_like(call.query)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in call.query.shape[:3])).tolist():
        keys = [j for j in range(len(k[b][h])) if allowed[b][h][i][j]]
        scores = [
            call.scale * sum(x * y for x, y in zip(q[b][h][i], k[b][h][j], strict=True))
            + (bias[b][h][i][j] if bias else 0.0)
            for j in keys
        ]
        weights = torch.tensor(scores, dtype=torch.float64).exp()
        for weight, j in zip((weights / weights.sum()).tolist(), keys, strict=True):
            out[b, h, i] += weight * torch.tensor(v[b][h][j], dtype=out.dtype)
    return out


def agrees(chosen, call):
    torch.testing.assert_close(gradients(chosen, call), gradients(backend("reference"), call))


def able(name, call):
    """The backend; skips the test where it cannot compute the call."""
    if reasons := backend(name).reasons(call):
        pytest.skip("; ".join(reasons))
    return backend(name)


def in_double(call):
    return replace(
        call, query=call.query.double(), key=call.key.double(), value=call.value.double()
    )


def gradients(chosen: Backend, call: Call):
    leaves = [x.detach().clone().requires_grad_() for x in (call.query, call.key, call.value)]
    out = chosen.attend(replace(call, query=leaves[0], key=leaves[1], value=leaves[2]))
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device)
    weights = weights.reshape(out.shape)
    (out.double() * weights).sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize(("length", "padding"), SHAPES[:3])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_reference_equals_a_loop(plan, length, padding):
    call = case(plan, length, padding)
    torch.testing.assert_close(backend("reference").attend(call), by_hand(call))


def test_reference_adds_a_number_for_each_distance():
    call = case("neighbor(radius=3) | global(cls)", 7)
    values = torch.randn(HEADS, 13, dtype=torch.float64)
    pairs = [[[row[j - i + 6] for j in range(7)] for i in range(7)] for row in values.tolist()]
    out = backend("reference").attend(replace(call, bias=DistanceBias(values)))
    by_pair = replace(call, bias=torch.tensor(pairs, dtype=torch.float64)[None])
    torch.testing.assert_close(out, by_hand(by_pair))


def test_reference_adds_the_bias():
    call = case("neighbor(radius=2)", 7)
    call = replace(call, bias=torch.randn(1, HEADS, 7, 7, dtype=torch.float64))
    torch.testing.assert_close(backend("reference").attend(call), by_hand(call))


@pytest.mark.parametrize(("length", "padding"), SHAPES)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", OTHERS)
def test_forward_and_gradients_against_the_reference(name, plan, length, padding):
    call = case(plan, length, padding)
    agrees(able(name, call), call)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
@pytest.mark.parametrize("length", [1, 63])
@pytest.mark.parametrize("name", NAMES)
def test_lower_precision_stays_near_the_reference(name, length, dtype, tolerance):
    call = case(PLANS["window and global"], length, dtype=dtype)
    out = able(name, call).attend(call)
    assert out.dtype == dtype
    expected = backend("reference").attend(in_double(call))
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)]
)
@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", backends)
def test_forward_and_gradients_on_a_gpu(name, plan, padding, dtype, tolerance):
    call = case(plan, 130, padding, dtype, device="cuda")
    exact = case(plan, 130, padding)
    exact = replace(
        exact, **{x: getattr(call, x).cpu().double() for x in ("query", "key", "value")}
    )
    expected, expected_grads = gradients(backend("reference"), exact)
    out, grads = gradients(able(name, call), call)
    for ours, theirs in zip((out, *grads), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(ours.cpu().double(), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_rows_with_nothing_allowed_are_zero_and_pass_no_gradient(name):
    call = case("neighbor(radius=1)", 7)
    chosen = able(name, call)
    out, (grad, _, _) = gradients(chosen, call)
    padding = ~call.rule.valid[:, None, :, None].expand_as(out)
    assert (out[padding] == 0).all()
    assert (grad[padding] == 0).all()
    assert grad.isfinite().all()
    nothing = replace(call.rule, valid=torch.zeros_like(call.rule.valid))
    assert (chosen.attend(replace(call, rule=nothing)) == 0).all()


@pytest.mark.parametrize("name", OTHERS)
def test_bias_with_gradient(name):
    call = case("neighbor(radius=2) | global(cls)", 9)
    able(name, replace(call, bias=torch.zeros(1, 1, 9, 9)))
    grads = []
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(1, HEADS, 9, 9, dtype=torch.float64, generator=generator)
    for each in ("reference", name):
        bias = values.clone().requires_grad_()
        out = backend(each).attend(replace(call, bias=bias))
        out.square().sum().backward()
        grads.append((out.detach(), bias.grad))
    torch.testing.assert_close(grads[1], grads[0])
    assert grads[1][1].isfinite().all()


@pytest.mark.parametrize(("length", "padding"), SHAPES)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", OTHERS)
def test_a_number_for_each_distance_with_gradient(name, plan, length, padding):
    call = case(plan, length, padding)
    generator = torch.Generator().manual_seed(length)
    values = torch.randn(HEADS, 2 * length - 1, dtype=torch.float64, generator=generator)
    able(name, replace(call, bias=DistanceBias(values)))
    results = []
    for each in ("reference", name):
        leaf = values.clone().requires_grad_()
        out, states = gradients(backend(each), replace(call, bias=DistanceBias(leaf)))
        results.append((out, *states, leaf.grad))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("name", NAMES)
def test_padding_holds_anything(name):
    """What stands in padding, even infinities, never reaches a real token."""
    call = case("neighbor(radius=2) | global(cls)", 7)
    chosen = able(name, call)
    padding = ~call.rule.valid[:, None, :, None].expand_as(call.query)
    states = {x: getattr(call, x).masked_fill(padding, 1e30) for x in ("query", "key", "value")}
    dirty = replace(call, **states)
    torch.testing.assert_close(chosen.attend(dirty), chosen.attend(call))


@pytest.mark.parametrize("name", NAMES)
def test_a_disallowed_token_changes_nothing(name):
    call = case("neighbor(radius=2)", 20, padding="none")
    chosen = able(name, call)
    key, value = call.key.clone(), call.value.clone()
    key[:, :, 10], value[:, :, 10] = 5.0, -5.0
    out = chosen.attend(call)
    changed = (chosen.attend(replace(call, key=key, value=value)) - out).abs().amax((0, 1, 3))
    outside = [i for i in range(20) if abs(i - 10) > 2]
    assert (changed[outside] == 0).all()
    assert (changed[8:13] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_masks_of_single_heads(name):
    mask = torch.zeros(2, HEADS, 5, 5, dtype=torch.bool)
    mask[0, 1, 2, 4] = mask[1, 3, 0, 2] = True
    tokens = sa.TokenBatch.of_lengths(5, 5)
    rule = LayerRule(((tuple(range(HEADS)), Rule((Pairs(mask), Band(0)))),), HEADS, tokens.valid)
    call = replace(case("full()", 5, "none"), rule=rule)
    chosen = able(name, call)
    torch.testing.assert_close(chosen.attend(call), by_hand(call))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_keeps_the_mean(name):
    call = replace(case("neighbor(radius=1)", 4, "none", dtype=torch.float32), dropout=0.3)
    chosen = able(name, call)
    torch.manual_seed(0)
    runs = torch.stack([chosen.attend(call) for _ in range(1500)])
    expected = backend("reference").attend(replace(call, dropout=0.0))
    assert not torch.equal(runs[0], runs[1])
    error = runs.std(0) / len(runs) ** 0.5
    assert ((runs.mean(0) - expected).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    call = case("neighbor(radius=1) | global(cls)", 5)
    chosen = able(name, call)
    leaves = [x[:, :, :, :3].clone().requires_grad_() for x in (call.query, call.key, call.value)]
    rule = call.rule

    def attend(q, k, v):
        return chosen.attend(Call(q, k, v, rule, 0.5))

    assert torch.autograd.gradcheck(attend, leaves)


@pytest.mark.parametrize("name", NAMES)
def test_computed_covers_what_is_allowed(name):
    rule = case("neighbor(radius=2)", 63).rule
    allowed = int(rule.dense.sum()) * HEADS
    # Blocks may reach beyond the text, up to a multiple of 128.
    assert allowed <= backend(name).computed(rule) <= 2 * HEADS * 128**2


def test_head_subsets_agree_with_the_whole():
    rule = case(PLANS["mixed heads"], 7).rule
    every = torch.arange(7)
    for heads in ([0], [1, 3], [2, 0], [3]):
        some = rule.allowed(every, every, heads)
        assert torch.equal(some.expand(-1, len(heads), -1, -1), rule.dense[:, heads])


def test_a_named_backend_raises_with_every_reason():
    class Picky(Backend):
        summary = "refuses"

        def reasons(self, call):
            return ["one thing", "another thing"]

        def attend(self, call):
            raise AssertionError

        def computed(self, rule):
            return 0

    backends.add("picky", Picky, Picky())
    try:
        message = re.escape("backend 'picky' cannot compute this: one thing; another thing")
        with pytest.raises(BackendError, match=message):
            select("picky", case("full()", 2))
    finally:
        backends.discard("picky")
    assert select("auto", case("full()", 2))[0].name in backends


@pytest.mark.parametrize("index", [7, 40, 2**40])
def test_a_key_beyond_the_text_is_refused(index):
    keys = torch.full((1, 7, 2), -1)
    keys[0, 3, 1] = index
    valid = torch.ones(1, 7, dtype=torch.bool)
    message = f"key {index} is beyond the 7 tokens of the batch; choose from: 0 to 6, or -1"
    with pytest.raises(PatternError, match=message):
        LayerRule((((0, 1), Rule((Band(1), Keys(keys)))),), 2, valid)


def test_the_keys_of_a_gpu_are_checked_without_reading_them():
    """A fake tensor has no values: whatever reads one fails, as it would make a GPU wait."""
    with FakeTensorMode():
        keys = torch.zeros(1, 7, 2, dtype=torch.int64, device="cuda")
        valid = torch.ones(1, 7, dtype=torch.bool, device="cuda")
        with pytest.raises(RuntimeError):
            int(keys.max())
        with CountingCalls() as calls:
            LayerRule((((0, 1), Rule((Keys(keys),))),), 2, valid)
    assert "aten._assert_async.msg" in calls.names


class CountingCalls(TorchDispatchMode):
    """Notes what is computed."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "part",
    [
        GlobalTokens(torch.ones(1, 10, dtype=torch.bool)),
        GlobalTokens(torch.ones(1, 5, dtype=torch.bool)),
        Product(keys=torch.ones(1, 8, dtype=torch.bool)),
        Band(torch.ones(3, 7).long()),
        SameLabel(torch.ones(1, 70).long()),
        Keys(torch.zeros(2, 8, 1).long()),
        Both(Rule((Keys(torch.zeros(1, 9, 1).long()),)), Rule((Band(1),))),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_tensor_of_another_batch_is_refused(part):
    valid = torch.ones(2, 7, dtype=torch.bool)
    with pytest.raises(PatternError, match=r"a batch of 2 texts of 7 tokens needs \[1 or 2, 7,"):
        LayerRule((((0, 1), Rule((part,))),), 2, valid)
