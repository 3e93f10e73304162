"""The numbers of the flex backend, and its guards, each provoked.

It computes in float32 on a CPU, without gradients: most of the conformance suite is not for it.
"""

from __future__ import annotations

import itertools
import re
import warnings
from dataclasses import replace

import pytest
import torch

from sparseattn.auto import choose, select
from sparseattn.backend import backend
from sparseattn.backends import flex
from sparseattn.backends.kernels import flex_mask
from sparseattn.errors import BackendError
from tests.backends.test_conformance import HEADS, PLANS, case, in_double

PLAN = "neighbor(radius=3) | global(cls)"
#: PyTorch's compiler warns of PyTorch when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")


def fresh():
    torch._dynamo.reset()
    for cache in (flex._SELF_TESTS, flex._COMPILED_SHAPES, flex._MASKS.by_fingerprint):
        cache.clear()
    for function in (flex._compiled, flex._uncompilable):
        function.cache_clear()


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    if problem := flex._uncompilable("cpu"):
        pytest.skip(problem)
    fresh()
    yield
    monkeypatch.undo()
    fresh()


@pytest.fixture
def quick(monkeypatch):
    """PyTorch's tracing as it is, without the code generation that takes most of the time."""
    from torch._inductor import compile_fx

    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, _inputs: graph.forward)


def single(length, **changes):
    return replace(case(PLAN, length, dtype=torch.float32), **changes)


def near_reference(call, note=""):
    with torch.no_grad():
        out = select("flex", call)[0].attend(call)
    expected = backend("reference").attend(in_double(call)).float()
    torch.testing.assert_close(
        out, expected, atol=1e-5, rtol=1e-5, msg=lambda text: f"{note}: {text}"
    )


# --- numbers

STRUCTURED = {
    name: plan for name, plan in PLANS.items() if flex_mask.refused(case(plan, 40).rule) is None
} | {
    "irregular": "irregular(radii=[0, 2, 40], weights=[0.5, 0.3, 0.2]) | global(cls)",
    "elastic": "elastic(share=0.1)",
    "elastic and wide": "elastic(share=0.8) | global(cls)",
    "wide": "neighbor(radius=70)",
    "heads apart": {0: {"0": "neighbor(radius=90)", "1:": "neighbor(radius=2) | global(cls)"}},
    "many global tokens": "neighbor(radius=1) | global(first=40)",
}
#: What the mask function does not take.
REFUSED = (
    "random(degree=2)",
    "dilated(radius=2, dilation=3)",
    "block(size=5) | neighbor(radius=1)",
)
CASES = [(1, "none"), (63, "left"), (130, "right"), (130, "none")]


def test_every_plan_length_and_padding(quick):
    """In one test: most of the time goes into what they share, tracing each shape of batch."""
    for (name, plan), (length, padding) in itertools.product(STRUCTURED.items(), CASES):
        note = f"{name}, {length} tokens, padding {padding}"
        near_reference(case(plan, length, padding, torch.float32), note)


def pairs_of(count, order, size):
    """The pairs in listed blocks of keys."""
    first = torch.arange(order.shape[-1]) < count[..., None]
    blocks = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order.long(), first)
    return blocks.repeat_interleave(size, 2).repeat_interleave(size, 3)


@pytest.mark.parametrize("plan", STRUCTURED.values(), ids=STRUCTURED)
def test_blocks_and_mask_function_allow_exactly_what_the_rule_does(plan):
    """What a kernel computes: in partial blocks what the function allows, in full ones all."""
    for length, padding in [*CASES, (256, "none"), (300, "right")]:
        rule = case(plan, length, padding).rule
        padded = flex_mask.bucket(length)
        windows = flex_mask.windows_of(rule, padded)
        every = torch.arange(padded)
        indices = torch.meshgrid(torch.arange(2), torch.arange(HEADS), every, every, indexing="ij")
        expected = torch.zeros(2, HEADS, padded, padded, dtype=torch.bool)
        expected[..., :length, :length] = rule.dense
        for size in (32, 128):
            mask = flex_mask.block_mask(windows, size)
            partial = pairs_of(mask.kv_num_blocks, mask.kv_indices, size)
            full = pairs_of(mask.full_kv_num_blocks, mask.full_kv_indices, size)
            assert not (partial & full).any()
            allowed = mask.mask_mod(*indices)
            assert torch.equal((partial & allowed) | full.expand_as(allowed), expected)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        # Of 8 blocks of 32: a radius of 95 covers a block, and the next two on both sides.
        ("neighbor(radius=94)", 8 + 2 * 7),
        ("neighbor(radius=95)", 8 + 2 * 7 + 2 * 6),
        ("full()", 64),
        ("neighbor(radius=0) | global(first=32)", 8 + 7),
    ],
)
def test_which_blocks_are_full(plan, expected):
    for padding in ("none", "right"):
        rule = case(plan, 256, padding).rule
        windows = flex_mask.windows_of(rule, 256)
        blocks = flex_mask.blocks_of(windows, 32, full=True)
        assert blocks.shape[1] == 1  # one for all heads
        assert int(blocks[0].sum()) == expected
    # Half of the second text is padding.
    assert not blocks[1, :, 4:].any()
    assert not blocks[1, :, :, 4:].any()
    assert not flex_mask.blocks_of(windows, 32, full=False)[1, :, 4:].any()


@pytest.mark.parametrize("plan", REFUSED)
def test_what_does_not_fit_its_mask_is_refused(plan):
    with pytest.raises(BackendError, match="it takes one window without gaps a head"):
        select("flex", case(plan, 40, dtype=torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize("plan", STRUCTURED.values(), ids=STRUCTURED)
def test_every_plan_with_the_real_kernel(plan):
    """As above, with the code that PyTorch generates, which computes only the blocks it needs."""
    for length, padding in [(7, "right"), (130, "right"), (130, "left"), (256, "none")]:
        near_reference(case(plan, length, padding, torch.float32))


def test_block_masks_are_built_once_for_equal_batches(quick, monkeypatch):
    built, build = [], flex_mask.block_mask
    monkeypatch.setattr(flex_mask, "block_mask", lambda *a: built.append(a) or build(*a))
    near_reference(single(40))  # with the one of the self-test
    for seed in range(3):
        near_reference(case(PLAN, 40, dtype=torch.float32, seed=seed))
    assert len(built) == 2
    near_reference(single(41))
    assert len(built) == 3


def test_each_kind_of_mask_is_compiled_once(quick, monkeypatch):
    """Numbers are read from tensors; what decides what is read is part of the shape."""
    from torch._inductor import compile_fx

    graphs = []
    monkeypatch.setattr(
        compile_fx, "compile_fx", lambda graph, _inputs: graphs.append(graph) or graph.forward
    )
    near_reference(single(40))  # compiles that of the self-test, too
    graphs.clear()
    alike = [
        ("neighbor(radius=3)", "neighbor(radius=100)", "neighbor(radius=0)", "full()"),
        ({0: {"0": "neighbor(radius=9)", "1:": "full()"}},),
        ("elastic(share=0.1)", "elastic(share=0.9)"),
    ]
    for number, plans in enumerate(alike, 1):
        for plan, length in itertools.product(plans, (100, 128)):
            near_reference(case(plan, length, "right", torch.float32), plan)
        assert len(graphs) == number, plans
    near_reference(case("neighbor(radius=3)", 128, "none", torch.float32))
    assert len(graphs) == len(alike) + 1
    assert len(flex._COMPILED_SHAPES) == len(graphs) + 2


# --- guards


def test_a_warning_of_the_compiler_is_no_error(monkeypatch):
    """PyTorch warns when its compiler reads states with a history, on a GPU in training."""
    call, texts = single(40), [f"{flex._GRAD_WARNING}. Its .grad attribute won't"]

    def warns(query, *_states, **_options):
        for text in texts:
            warnings.warn(text, UserWarning, stacklevel=1)
        flex._RUNS[0] += 1
        return query

    monkeypatch.setattr(flex, "_compiled", lambda: warns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        flex._attend(call)
        assert warnings.filters == before
        # Nothing is hidden for a shape that was compiled.
        with pytest.raises(UserWarning, match="attribute of a Tensor"):
            flex._attend(call)
        texts.append("anything else")
        with pytest.raises(UserWarning, match="anything else"):
            flex._attend(single(300))


def test_it_is_tested_once_before_its_first_use(quick, monkeypatch):
    kinds, test = [], flex._self_test
    monkeypatch.setattr(flex, "_self_test", lambda kind: kinds.append(kind) or test(kind))
    near_reference(single(40))
    near_reference(single(100))
    assert kinds == [("cpu", torch.float32, False)]


def test_a_kernel_that_computes_something_else_is_not_used(quick, monkeypatch):
    read = flex_mask.windows_of

    def wider(rule, length):
        windows = read(rule, length)
        return replace(windows, radius=windows.radius + 1)

    monkeypatch.setattr(flex_mask, "windows_of", wider)
    call = single(40)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"failed its self-test: up to [\d.]+ away from SD"):
            select("flex", call)[0].attend(call)
    assert choose(call)[0].name == "masked"
    with pytest.raises(BackendError, match=r"^backend 'flex' cannot compute this: it failed its"):
        select("flex", call)


def test_too_many_shapes_are_an_error_and_no_dense_path(quick, monkeypatch):
    monkeypatch.setattr(flex, "_MAX_SHAPES", 2)
    near_reference(single(100))  # the self-test has another shape
    call = single(300)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"compiled for 2 shapes of batches, .* fewer len"):
            select("flex", call)
    # PyTorch's own limit, if more is compiled than was counted.
    flex._COMPILED_SHAPES.clear()
    with pytest.raises(BackendError, match=r"compiled for 2 shapes of batches, .* fewer len"):
        select("flex", call)[0].attend(call)
    ran = flex._RUNS[0]
    near_reference(single(100))
    assert flex._RUNS[0] == ran + 1


def test_a_call_that_fails_does_not_poison_the_next(quick):
    near_reference(single(40))
    call = single(40)
    with pytest.raises(Exception, match="Observed exception"):
        flex._attend(replace(call, query=call.query.clone().requires_grad_()))
    ran = flex._RUNS[0]
    near_reference(call)
    assert flex._RUNS[0] == ran + 1


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_compiling_switched_off_is_an_error(quick):
    call = single(40)
    near_reference(call)
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(BackendError, match="no compiled kernel ran; is torch"),
    ):
        near_reference(call)
    near_reference(call)


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_no_compiler_on_the_machine_is_one_line(compiler, tmp_path, monkeypatch):
    flex._uncompilable.cache_clear()
    if compiler is None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", compiler)
    with pytest.raises(BackendError, match=r"is not found; install it or set CXX$") as caught:
        select("flex", single(40))
    assert "\n" not in str(caught.value)
    assert (compiler or "g++") in str(caught.value)


def test_every_reason_is_given():
    call = single(40, dropout=0.1, bias=torch.zeros(1, 1, 40, 40))
    call = replace(call, query=call.query.clone().requires_grad_())
    message = "no dropout of attention weights; it adds no bias to the scores; on a CPU it computes"
    with pytest.raises(BackendError, match=re.escape(message)):
        select("flex", call)
