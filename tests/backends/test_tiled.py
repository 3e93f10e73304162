"""The tiled backend beyond the conformance suite: its kernel, its portable path and its lists."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode

import sparseattn as sa
from sparseattn.auto import select
from sparseattn.backend import Call, backend
from sparseattn.backends import tiled
from sparseattn.backends.kernels import gathered
from sparseattn.backends.kernels.cpu import launch as cpu
from sparseattn.backends.kernels.key_lists import of_band
from sparseattn.backends.kernels.tiles import tiles_of
from sparseattn.errors import BackendError
from sparseattn.files import cache_folder
from sparseattn.rules import (
    Band,
    Both,
    Except,
    GlobalTokens,
    Keys,
    LayerRule,
    Pairs,
    Product,
    Rule,
    SameLabel,
)
from tests.backends.test_conformance import HEADS, agrees, case, gradients, in_double

# 35 and 36 leave a last tile with three queries, computed one by one, and with four.
LENGTHS = [1, 2, 31, 33, 35, 36, 64, 130]
RADII = [0, 1, 31, 32, 5000]
PATHS = ["kernel", "portable"]
kernel_only = pytest.mark.skipif(cpu.uninstalled() is not None, reason="the kernel needs numba")
PLAN = "neighbor(radius=3) | global(cls)"


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.setattr(cpu, "POISON", True)
    torch.use_deterministic_algorithms(True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """The backend, on its kernel or without."""
    if request.param == "portable":
        monkeypatch.setattr(cpu, "missing", lambda *_: "switched off")
        monkeypatch.setattr(tiled, "_warn", lambda _: None)
    elif problem := cpu.missing():
        pytest.skip(problem)
    return backend("tiled")


def custom(groups, length, padding="right"):
    call = case("full()", length, padding)
    return replace(call, rule=replace(call.rule, groups=groups))


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_and_radii(path, length, radius):
    agrees(path, case(f"neighbor(radius={radius}) | global(cls)", length, "none"))
    agrees(path, case(f"neighbor(radius={radius})", length, "left"))


#: What a learned plan looks like: heads of their own radii, and a radius for each token.
LEARNED = {
    "mixed heads": {
        0: {
            str(head): f"neighbor(radius={r}) | global(cls)"
            for head, r in enumerate((0, 1, 31, 64))
        }
    },
    "irregular": "irregular(radii=[0, 1, 32, 64], weights=[0.4, 0.3, 0.2, 0.1]) | global(cls)",
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("plan", LEARNED.values(), ids=LEARNED)
def test_lengths_of_learned_plans(path, plan, length):
    agrees(path, case(plan, length, "left" if length % 2 else "right"))


@pytest.mark.parametrize("plan", ["bigbird(4, 2)", LEARNED["mixed heads"]])
def test_a_thousand_tokens(path, plan):
    agrees(path, case(plan, 1000, "left" if isinstance(plan, dict) else "right"))


PARTS = {
    "two windows": lambda n: (Band(1), Band(3)),
    "window and dilated": lambda n: (Band(1), Band(2, 5)),
    "dilated": lambda n: (Band(2, 7),),
    "dilated by two": lambda n: (Band(2, 2),),
    "dilated and global": lambda n: (Band(2, 3), GlobalTokens(torch.arange(n)[None] % 30 == 4)),
    "a radius a token": lambda n: (Band(torch.arange(n)[None] % 5),),
    "a radius a token and text": lambda n: (Band(torch.arange(2 * n).view(2, n) * 7 % 11),),
    "dilated, a radius a token": lambda n: (Band(torch.arange(n)[None] % 4, 3),),
    "keys alone, repeated": lambda n: (Keys(torch.arange(3 * n).view(1, n, 3) * 5 % n // 2),),
    "keys in window and global": lambda n: (
        Keys(torch.arange(8 * n).view(2, n, 4) * 5 % n),
        Keys(torch.full((1, n, 1), -1)),
        Band(2),
        GlobalTokens(torch.arange(n)[None] < 2),
    ),
    "labels": lambda n: (SameLabel(torch.arange(n)[None] % 6),),
    "labels and global": lambda n: (
        SameLabel(torch.arange(n)[None] // 9 - 1),
        GlobalTokens(torch.eye(1, n) > 0),
    ),
    "three global tokens": lambda n: (Band(2), GlobalTokens(torch.arange(n)[None] % 30 == 3)),
    "four global tokens": lambda n: (Band(2), GlobalTokens(torch.arange(n)[None] % 17 == 3)),
    "everything global": lambda n: (GlobalTokens(torch.ones(1, n, dtype=torch.bool)),),
    "two sets of global tokens": lambda n: (
        GlobalTokens(torch.arange(n)[None] == 3),
        GlobalTokens(torch.arange(2 * n).view(2, n) % 40 == 1),
    ),
    "cut": lambda n: (
        Both(Rule((GlobalTokens(torch.arange(n)[None] == 3), Band(9))), Rule((Band(5),))),
    ),
    "nothing": lambda n: (),
    "rows": lambda n: (Band(1), Product(queries=torch.arange(n)[None] % 30 == 4)),
    "columns": lambda n: (Band(3), Product(keys=torch.arange(2 * n).view(2, n) % 50 < 9)),
    "rows and columns apart": lambda n: (
        Product(torch.arange(n)[None] == 2, None),
        Product(None, torch.arange(n)[None] == 40),
        GlobalTokens(torch.arange(n)[None] == 50),
    ),
    "columns of some queries": lambda n: (
        Product(torch.arange(n)[None] < 30, torch.arange(n)[None] < 20),
        Product(torch.arange(n)[None] > 20, torch.arange(n)[None] % 3 == 1),
        Band(4),
    ),
    "columns of some queries, and keys": lambda n: (
        Product(torch.arange(n)[None] < 30, torch.arange(n)[None] % 4 == 1),
        Keys(torch.arange(8 * n).view(2, n, 4) * 5 % n),
    ),
    "a window of some queries": lambda n: (
        Both(Rule((Band(2, 3),)), Rule((Product(torch.arange(n)[None] % 9 > 3),))),
        Product(None, torch.arange(n)[None] < 4),
    ),
    "windows of some queries": lambda n: (
        Both(Rule((Product(torch.arange(2 * n).view(2, n) % 40 < 21),)), Rule((Band(6),))),
        Both(Rule((Band(3),)), Rule((Product(torch.arange(n)[None] > 40),))),
        Band(1),
    ),
    "a window of some queries and keys": lambda n: (
        Both(
            Rule((Band(5),)),
            Rule((Product(torch.arange(n)[None] < 30, torch.arange(n)[None] > 26),)),
        ),
    ),
    "every pair as a product": lambda n: (Product(), Band(1)),
    "a window, cut": lambda n: (
        Except(
            Rule((Band(5),)),
            Rule((Product(torch.arange(n)[None] < 30, torch.arange(n)[None] > 29),)),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("padding", ["left", "none"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_parts(path, parts, padding):
    every = tuple(range(HEADS))
    agrees(path, custom(((every, Rule(parts(70))),), 70, padding))


def some_keys(length, degree, texts=2, share=0.7):
    """Keys at random, in a share of the places; a text has its own."""
    generator = torch.Generator().manual_seed(length + degree)
    index = torch.randint(length, (texts, length, degree), generator=generator)
    return index.masked_fill(torch.rand(index.shape, generator=generator) > share, -1)


#: Keys that single queries of a tile have to themselves.
SCATTERED = {
    "some": lambda n: (Keys(some_keys(n, 2)), Band(1)),
    "beside global tokens": lambda n: (
        Keys(some_keys(n, 3, texts=1)),
        Band(4),
        GlobalTokens(torch.arange(n)[None] % 50 == 3),
    ),
    "many of few queries": lambda n: (
        Keys(some_keys(n, 30, share=1).masked_fill(torch.arange(n)[None, :, None] % 11 > 0, -1)),
    ),
    "of a mask": lambda n: (
        Pairs(torch.rand(2, 1, n, n, generator=torch.Generator().manual_seed(n)) < 2 / n),
    ),
    "beside a dilated window": lambda n: (Keys(some_keys(n, 2)), Band(2, 3)),
    "of all": lambda n: (Keys(torch.full((1, n, 2), n // 2)), Keys(some_keys(n, 1))),
}  # fmt: skip


@pytest.mark.parametrize(
    ("length", "padding"), [(1, "none"), (17, "left"), (35, "none"), (36, "left"), (130, "right")]
)
@pytest.mark.parametrize("parts", SCATTERED.values(), ids=SCATTERED)
def test_keys_of_single_queries(path, parts, length, padding):
    every = tuple(range(HEADS))
    agrees(path, custom(((every, Rule(parts(length))),), length, padding))


@pytest.mark.parametrize("width", [1, 20, 32, 64, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keys_of_single_queries_in_heads_of_their_own(path, width, dtype):
    groups = (
        ((0, 2), Rule(SCATTERED["some"](100))),
        ((3,), Rule((Band(3),))),
        ((1,), Rule(SCATTERED["many of few queries"](100))),
    )
    call = custom(groups, 100)
    generator = torch.Generator().manual_seed(1)
    states = [torch.randn(2, HEADS, 100, width, generator=generator).to(dtype) for _ in range(3)]
    call = Call(*states, call.rule, width**-0.5)
    out, grads = gradients(path, call)
    expected, expected_grads = gradients(backend("reference"), in_double(call))
    for ours, theirs in zip((out, *grads), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-6, rtol=2e-5)


@kernel_only
def test_nan_of_a_scattered_key_reaches_its_query_alone():
    keys = torch.full((1, 40, 1), -1)
    keys[0, 7, 0] = 30
    call = custom((((0, 1, 2, 3), Rule((Band(1), Keys(keys)))),), 40, "none")
    call.key[0, 0, 30] = float("nan")
    broken = backend("tiled").attend(call).isnan().any(-1)
    assert broken.nonzero()[:, 2].tolist() == [7, 29, 30, 31]


def test_every_head_its_own(path):
    mask = torch.rand(2, HEADS, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.1
    groups = (
        ((2,), Rule((Band(0),))),
        ((0,), Rule((Band(30),))),
        ((3, 1), Rule((Pairs(mask), GlobalTokens(torch.eye(1, 40) > 0)))),
    )
    agrees(path, custom(groups, 40))


def test_whole_rows_of_padding(path):
    call = case("neighbor(radius=2) | global(cls)", 20)
    valid = call.rule.valid.clone()
    valid[0] = False
    rule = LayerRule(call.rule.groups, HEADS, valid)
    agrees(path, replace(call, rule=rule))
    empty = replace(call, rule=replace(rule, valid=torch.zeros_like(valid)))
    assert (path.attend(empty) == 0).all()


def test_no_texts_at_all(path):
    call = case("neighbor(radius=2)", 5)
    rule = replace(call.rule, valid=call.rule.valid[:0])
    none = Call(call.query[:0], call.key[:0], call.value[:0], rule, 1.0)
    assert path.attend(none).shape == (0, HEADS, 5, 16)


def test_other_memory_layouts(path):
    call = case(PLAN, 50)
    expected = backend("reference").attend(call)
    for turn in (
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.stack([x, x * 0 - 1], dim=-2)[..., 0, :],
        lambda x: x.flip(2).contiguous().flip(2),
    ):
        other = replace(call, query=turn(call.query), key=turn(call.key), value=turn(call.value))
        torch.testing.assert_close(path.attend(other), expected)


@pytest.mark.parametrize("width", [1, 3, 20, 32, 40])
def test_head_widths(path, width):
    call = case("neighbor(radius=3)", 33)
    generator = torch.Generator().manual_seed(1)
    states = [torch.randn(2, HEADS, 33, width, generator=generator).double() for _ in range(3)]
    agrees(path, Call(*states, call.rule, 0.5))


def test_autocast(path):
    call = case(PLAN, 50, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = path.attend(call)
        low = replace(call, query=call.query.bfloat16(), key=call.key.bfloat16())
        mixed = path.attend(replace(low, value=low.value.bfloat16()))
    expected = backend("reference").attend(call)
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(mixed.float(), expected, atol=3e-2, rtol=3e-2)


def test_nan_is_not_hidden(path):
    call = case("neighbor(radius=1)", 40, "none", dtype=torch.float32)
    call.query[0, 0, 5] = float("nan")
    broken = path.attend(call).isnan().any(-1)
    assert broken[0, 0, 5]
    assert broken.sum() == 1


def test_large_scores(path):
    call = case("neighbor(radius=5)", 40, dtype=torch.float32)
    call = replace(call, query=call.query * 300)
    expected = backend("reference").attend(in_double(call)).float()
    torch.testing.assert_close(path.attend(call), expected, atol=1e-3, rtol=1e-3)


# --- dropout


def weights_call(plan, length=16, seed=0):
    """A call whose contexts are its attention weights: the values are unit vectors."""
    call = case(plan, length, "none", seed=seed)
    eye = torch.eye(length, dtype=torch.float64).expand(2, HEADS, -1, -1)
    query, key = (pad(x, (0, length - 16)) for x in (call.query, call.key))
    return replace(call, query=query, key=key, value=eye)


def test_dropout_drops_each_weight_as_often_and_scales_the_rest(path):
    call = replace(weights_call("neighbor(radius=2) | global(cls)"), dropout=0.3)
    allowed = call.rule.dense.expand(-1, HEADS, -1, -1)
    dense = path.attend(replace(call, dropout=0.0))
    torch.manual_seed(0)
    runs = torch.stack([path.attend(call) for _ in range(400)])
    kept = runs != 0
    torch.testing.assert_close(runs[kept], (dense / 0.7).expand_as(runs)[kept])
    assert not kept[:, ~allowed].any()
    share = kept[:, allowed].double()
    # A share of 400 draws has a standard deviation of 0.023; there are some 700 shares.
    assert (share.mean(0) - 0.7).abs().max() < 5 * 0.023
    assert abs(share.mean() - 0.7) < 0.003
    centred = share - share.mean(0)
    together = (centred.T @ centred / len(runs) / 0.21).fill_diagonal_(0)
    assert together.abs().max() < 6 / 400**0.5


@pytest.mark.parametrize(
    ("plan", "length"),
    [("neighbor(radius=3) | global(cls)", 16), ("neighbor(radius=2) | random(degree=3)", 48)],
)
def test_dropout_in_the_backward_pass_is_that_of_the_forward_pass(plan, length):
    if problem := cpu.missing():
        pytest.skip(problem)
    call = replace(weights_call(plan, length), dropout=0.4)
    torch.manual_seed(5)
    kept = backend("tiled").attend(call) != 0
    values = torch.randn(2, HEADS, length, length, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in (call.query, call.key, values)]
    scores = leaves[0] @ leaves[1].transpose(-2, -1) * call.scale
    weights = scores.masked_fill(~call.rule.dense, float("-inf")).softmax(-1)
    expected = (weights * kept / 0.6) @ leaves[2]
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, leaves, grad)
    torch.manual_seed(5)
    out = backend("tiled").attend(replace(call, query=leaves[0], key=leaves[1], value=leaves[2]))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, leaves, grad), expected_grads)


@kernel_only
def test_dropout_is_the_same_whether_keys_are_scattered(monkeypatch):
    call = replace(weights_call("neighbor(radius=2) | random(degree=3)", 64), dropout=0.4)
    outs = []
    for scatter in (True, False):
        monkeypatch.setattr(tiled, "_tiles", lambda rule, s=scatter: tiles_of(rule, 16, s))
        torch.manual_seed(5)
        outs.append(backend("tiled").attend(call))
    torch.testing.assert_close(*outs)
    assert len(tiles_of(call.rule, 16, scatter=True).scattered.keys)


# --- with the rest of PyTorch


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_caller(path):
    call = case(PLAN, 30, dtype=torch.float32)

    def run(q, k, v):
        return path.attend(replace(call, query=q * 2, key=k, value=v)) + 1

    compiled = torch.compile(run, backend="aot_eager")
    states = [x.clone().requires_grad_() for x in (call.query, call.key, call.value)]
    out, expected = compiled(*states), run(*states)
    assert torch.equal(out, expected)
    grads = [torch.autograd.grad(o.square().sum(), states) for o in (out, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("pooled", [False, True])
def test_neither_the_number_nor_the_kind_of_threads_changes_anything(pooled, monkeypatch):
    if problem := cpu.missing():
        pytest.skip(problem)
    before = torch.get_num_threads()
    call = case({0: {"0": "neighbor(radius=40)", "1:": "bigbird(3, 2)"}}, 130)
    torch.set_num_threads(1)
    expected = gradients(backend("tiled"), call)
    if pooled:
        monkeypatch.setattr(cpu, "_team", lambda: cpu._pooled)
    try:
        for threads in (2, 5):
            torch.set_num_threads(threads)
            out, grads = gradients(backend("tiled"), call)
            assert torch.equal(out, expected[0])
            assert all(torch.equal(a, b) for a, b in zip(grads, expected[1], strict=True))
    finally:
        torch.set_num_threads(before)


# --- the lists


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize(
    "plan", ["neighbor(radius=16) | global(cls)", "bigbird(8, 1)", "dilated(4, 8)"]
)
def test_no_tensor_grows_with_the_square_of_the_length(path, plan):
    sizes = []
    for length in (1024, 4096):
        rule = sa.Plan.of(plan).compile(sa.TokenBatch.of_lengths(length), [1]).layers[0]
        states = [torch.randn(1, 1, length, 16, requires_grad=True) for _ in range(3)]
        with Largest() as largest:
            path.attend(Call(*states, rule, 0.25)).sum().backward()
        sizes.append(largest.numbers)
    assert sizes[1] <= 4.5 * sizes[0]
    assert sizes[1] < 4096**2 / 8


def test_a_pair_of_texts_needs_no_mask(path, monkeypatch):
    """The lists of the plan of Sparse Cross-Encoders come from its rows and columns."""
    monkeypatch.setattr("sparseattn.backends.kernels.tiles.of_rule", None)
    tokens = sa.TokenBatch.of_lengths(70, 50)
    place = torch.arange(70).expand(2, -1)
    tokens = replace(tokens, special=place == 0, separators=(place == 9) | (place == 49))
    plan = "neighbor(radius=4) & segment(query=1) | segment(key=0) | global(cls, columns=false)"
    rule = sa.Plan.of(plan).compile(tokens, [HEADS]).layers[0]
    assert not rule.dense[0, 0, 1:10, 10:].any()  # no query token sees the document
    agrees(path, replace(case("full()", 70), rule=rule))


@kernel_only
@pytest.mark.parametrize(
    "parts", [PARTS["dilated by two"], SCATTERED["some"]], ids=["band", "keys"]
)
def test_computed_counts_keys_of_single_queries_once(parts):
    rule = custom(((tuple(range(HEADS)), Rule(parts(160))),), 160, "none").rule
    order = torch.arange(160)
    if len(rule.groups[0][1].parts) == 1:  # a dilated window: queries a step apart are neighbours
        order = torch.argsort(order % 2, stable=True)
    tiles = rule.dense.expand(2, 1, -1, -1)[:, 0, order].unflatten(1, (-1, 16)).sum(2)
    scattered = 0 if len(rule.groups[0][1].parts) == 1 else int((tiles == 1).sum())
    shared = int((tiles > 0).sum()) - scattered
    assert backend("tiled").computed(rule) == HEADS * (16 * shared + scattered)
    assert (backend("tiled").work(rule) > backend("tiled").computed(rule)) == (scattered > 0)


@kernel_only
def test_layers_whose_heads_differ_share_the_lists_of_equal_patterns(monkeypatch):
    made = []
    monkeypatch.setattr(
        "sparseattn.backends.kernels.tiles.of_band", lambda *x: made.append(0) or of_band(*x)
    )
    pattern = "neighbor(radius=2) | random(degree=2, per_layer=false)"
    plan = {layer: {str(layer): pattern, str(layer + 1): "self()"} for layer in range(3)}
    rules = sa.Plan.of(plan).compile(sa.TokenBatch.of_lengths(3011), [HEADS] * 3).layers
    for rule in rules:
        backend("tiled").computed(rule)
    assert len({id(rule) for rule in rules}) == 3
    assert len(made) == 2


@kernel_only
def test_block_density_of_a_window():
    rule = case("neighbor(radius=32)", 160, "none").rule
    keys = 2 * (48 + 64) + 6 * 80  # of ten tiles: the first and last two are clipped
    assert backend("tiled").computed(rule) == 2 * HEADS * 16 * keys


@kernel_only
def test_labels_far_apart_do_not_cost_the_whole_square():
    rule = sa.Plan.of("strided(stride=32)").compile(sa.TokenBatch.of_lengths(512), [1]).layers[0]
    assert backend("tiled").computed(rule) == 512 * 16


# --- errors and messages


def test_a_bias_is_refused():
    call = replace(case("full()", 4), bias=torch.zeros(1, 1, 4, 4))
    with pytest.raises(BackendError, match=r"adds no bias of its own to each pair"):
        select("tiled", call)


def test_gathered_padding_alone_has_gradients_of_zero():
    tokens = sa.TokenBatch(torch.zeros(2, 20, dtype=torch.bool))
    rule = sa.Plan.of(PLAN).compile(tokens, [HEADS]).layers[0]
    states = [torch.full((2, HEADS, 20, 8), float("inf"), requires_grad=True) for _ in range(3)]
    out = gathered.attend_gathered(Call(*states, rule, 1.0))
    assert not out.any()
    out.sum().backward()
    assert all(state.grad is not None and not state.grad.any() for state in states)


def test_gathered_gradients_of_a_global_token_are_added_up_in_single_precision():
    """A sum of thousands of terms in bfloat16 would be off by more than its inputs are."""
    length, grads = 2048, {}
    rule = sa.Plan.of(PLAN).compile(sa.TokenBatch.of_lengths(length), [1]).layers[0]
    drawn = torch.Generator().manual_seed(0)
    numbers = [torch.randn(1, 1, length, 16, generator=drawn).bfloat16() for _ in range(4)]
    for dtype in (torch.float64, torch.bfloat16):
        *states, weights = (x.to(dtype) for x in numbers)
        states = [x.requires_grad_() for x in states]
        (gathered.attend_gathered(Call(*states, rule, 0.25)) * weights).sum().backward()
        grads[dtype] = torch.stack([x.grad[0, 0, 0].double() for x in states])
    apart = (grads[torch.bfloat16] - grads[torch.float64]).norm(dim=1)
    assert (apart / grads[torch.float64].norm(dim=1)).max() < 0.006


@pytest.fixture
def checked_anew():
    """What was found out about the kernel is forgotten, before and after."""
    for cached in (cpu.missing, tiled._warn):
        cached.cache_clear()
    yield
    for cached in (cpu.missing, tiled._warn):
        cached.cache_clear()


@pytest.mark.usefixtures("checked_anew")
def test_without_numba_there_is_one_message_and_the_same_result(monkeypatch):
    call = case(PLAN, 40)
    monkeypatch.setattr(cpu, "find_spec", lambda _: None)
    with pytest.warns(RuntimeWarning, match="slower path .* numba is not .* pip install 'sparse"):
        agrees(backend("tiled"), call)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees(backend("tiled"), call)


@pytest.mark.usefixtures("checked_anew")
def test_without_a_backward_pass_inference_keeps_the_kernel(monkeypatch):
    if problem := cpu.missing(trains=False):
        pytest.skip(problem)
    compiled = cpu.compiled

    def partly(name):
        if name.startswith("backward"):
            raise NotImplementedError("no such instruction")
        return compiled(name)

    monkeypatch.setattr(cpu, "compiled", partly)
    cpu.missing.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend("tiled").attend(case(PLAN, 20, dtype=torch.float32))
    with pytest.warns(RuntimeWarning, match="numba cannot compile it here: .* instruction"):
        agrees(backend("tiled"), case(PLAN, 20))


def test_a_damaged_file_of_machine_code_is_compiled_again(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    damaged = cpu._code_cache() / "index.nbi"
    damaged.write_bytes(b"cut")

    def compile_(name, folder):
        if damaged.exists():
            raise EOFError
        return name, folder

    monkeypatch.setattr(cpu, "_compile", compile_)
    assert cpu.compiled.__wrapped__("forward32") == ("forward32", damaged.parent)


def test_machine_code_is_kept_where_nobody_else_writes(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    folder = cpu._code_cache()
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    assert cpu._code_cache().stat().st_mode & 0o077 == 0

    def refuse(self, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)  # as of a folder of another user's
    with pytest.warns(RuntimeWarning, match="compiled anew by every process: .* not permitted"):
        assert cpu._code_cache() is None


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    for name in ("SPARSEATTN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_folder() == Path(tempfile.gettempdir(), f"sparseattn-{os.getuid()}")


def test_wide_windows_have_larger_tiles():
    sizes = []
    for radius in (32, 200):
        call = case(f"neighbor(radius={radius})", 900, "none", dtype=torch.float32)
        sizes.append(gathered.gathered_tiles(call.rule).queries.shape[1])
        out = gathered.attend_gathered(call)
        torch.testing.assert_close(out, backend("reference").attend(call), atol=1e-5, rtol=1e-5)
    assert sizes == [32, 64]


def test_masks_that_are_computed_in_portions(path, monkeypatch):
    """Of long texts a few tiles at a time, whose lists are joined."""
    monkeypatch.setattr("sparseattn.backends.kernels.key_lists._PAIRS", 1)
    labels = Rule((SameLabel(torch.arange(100)[None] % 6), GlobalTokens(torch.eye(1, 100) > 0)))
    agrees(path, custom((((0, 1, 2, 3), labels),), 100))


# --- memory

MAPS = Path("/proc/self/smaps")
linux = pytest.mark.skipif(
    not (MAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()),
    reason="no large pages to ask for on this system",
)


def mapping(address):
    """The lines about the mapping that an address lies in, by their first word."""
    inside, lines = False, {}
    for words in map(str.split, MAPS.read_text().splitlines()):
        if not words[0].endswith(":"):
            begin, end = (int(x, 16) for x in words[0].split("-"))
            inside = begin <= address < end
        elif inside:
            lines[words[0].removesuffix(":")] = words[1:]
    return lines


def zeros(size):
    out = cpu.empty_result(torch.empty(1, 1, size // 64, 16), zero=True)
    assert out.shape == (1, 1, size // 64, 16)
    assert not out.any()
    return out


@linux
@pytest.mark.parametrize(
    ("size", "large"), [(cpu.LARGE, True), (cpu.LARGE // 1024, False)], ids=["large", "small"]
)
def test_large_results_have_large_pages(size, large):
    out = zeros(size)
    assert ("hg" in mapping(out.data_ptr() + size // 2)["VmFlags"]) == large
