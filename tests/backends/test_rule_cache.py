"""The cache of what backends build for a rule."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch

import sparseattn as sa
from sparseattn.backend import backend
from sparseattn.backends import masked
from sparseattn.backends.kernels import rule_cache, tiles
from sparseattn.backends.kernels.rule_cache import RuleCache, fingerprint
from sparseattn.rules import Band, Both, GlobalTokens, Keys, LayerRule, Pairs, Part, Rule
from tests.backends.test_conformance import HEADS, case

PLAN = "neighbor(radius=3) | global(cls)"


def rule(plan=PLAN, *lengths, heads=2):
    tokens = sa.TokenBatch.of_lengths(*lengths or (40,))
    return sa.Plan.of(plan).compile(tokens, [heads]).layers[0]


def of_part(part, length=40):
    return replace(rule("self()", length), groups=(((0, 1), Rule((part,))),))


def test_equal_rules_of_two_batches_have_one_fingerprint():
    for plan in (PLAN, "bigbird(2, 1)", "random(degree=3)", {0: {"0": "self()", "1": PLAN}}):
        assert fingerprint(rule(plan)) == fingerprint(rule(plan))
    assert fingerprint(rule(PLAN, 40, 20)) == fingerprint(rule(PLAN, 40, 20))
    nested = [of_part(Both(Rule((Band(2),)), Rule((Band(3), Band(1))))) for _ in range(2)]
    assert fingerprint(nested[0]) == fingerprint(nested[1])


DIFFERENT = {
    "radius": rule("neighbor(radius=4) | global(cls)"),
    "length": rule(PLAN, 41),
    "texts": rule(PLAN, 40, 40),
    "padding": rule(PLAN, 40, 20),
    "other padding": rule(PLAN, 40, 21),
    "heads": rule(PLAN, heads=3),
    "heads that share": rule({0: {"0": PLAN, "1": "self()"}}),
    "heads that share otherwise": rule({0: {"1": PLAN, "0": "self()"}}),
    "global token": rule("neighbor(radius=3) | global(positions=[1])"),
    "dilation": of_part(Band(3, 2)),
    "radius of dilation": of_part(Band(2, 3)),
    "radii": of_part(Band(torch.full((1, 40), 3))),
    "keys": of_part(Keys(torch.full((1, 40, 1), 3))),
    "type": of_part(Keys(torch.full((1, 40, 1), 3).int())),
    "both": of_part(Both(Rule((Band(2), Band(1))), Rule((Band(3),)))),
    "both, split otherwise": of_part(Both(Rule((Band(2),)), Rule((Band(1), Band(3))))),
}


def test_different_rules_have_different_fingerprints():
    prints = [fingerprint(rule()), *map(fingerprint, DIFFERENT.values())]
    assert None not in prints
    assert len(set(prints)) == len(prints)


def test_a_rule_that_costs_too_much_to_compare_has_no_fingerprint():
    class Odd(Part):
        def allowed(self, q, k):
            return (q[:, None] >= k)[None, None]

    @dataclass(frozen=True)
    class Scaled(Part):
        factor: float

        def allowed(self, q, k):
            return (q[:, None] * self.factor >= k)[None, None]

    large = Pairs(torch.ones(1, 1, 1100, 1100, dtype=torch.bool))
    assert fingerprint(of_part(Odd())) is None
    assert fingerprint(of_part(Scaled(0.5))) is None
    assert fingerprint(of_part(large, 1100)) is None
    for read_gpu in (False, True):
        assert (
            fingerprint(replace(rule(), valid=torch.ones(1, 40, device="meta")), read_gpu) is None
        )


@pytest.mark.gpu
def test_a_gpu_is_waited_for_where_that_is_worth_it():
    tokens = sa.TokenBatch(torch.ones(1, 40, dtype=torch.bool, device="cuda"))
    on_gpu = sa.Plan.of(PLAN).compile(tokens, [2]).layers[0]
    assert fingerprint(on_gpu) is None
    assert fingerprint(on_gpu, read_gpu=True) not in (None, fingerprint(rule()))


def test_only_the_last_and_small_values_are_stored_for_equal_rules(monkeypatch):
    monkeypatch.setattr(rule_cache, "_MAX_NUMBERS", 10)
    monkeypatch.setattr(rule_cache, "_MAX_VALUES", 2)
    cache = RuleCache(int)
    built = []
    for length in (5, 6, 5, 7, 5, 6):
        build = lambda length=length: built.append(length) or length  # noqa: E731
        assert cache.get(rule(PLAN, length), None, build) == length
    assert built == [5, 6, 7, 6]
    one = rule()
    assert cache.get(one, "large", lambda: 11) == 11
    assert cache.get(rule(), "large", lambda: 9) == 9
    assert cache.get(one, "large", lambda: 8) == 11


@pytest.mark.parametrize("plan", [PLAN, {0: {"0": "self()", "1:": "bigbird(1, 2)"}}])
def test_lists_and_masks_are_built_once_for_equal_batches(monkeypatch, plan):
    monkeypatch.setattr(tiles, "_TILES", RuleCache(lambda lists: len(lists.shared.keys)))
    monkeypatch.setattr(masked, "_MASKS", RuleCache(torch.Tensor.numel))
    built = []
    build = tiles._build
    monkeypatch.setattr(tiles, "_build", lambda *a: built.append(a) or build(*a))
    outs = {}
    for seed in range(2):
        call = case(plan, 50, seed=seed)
        for name in ("tiled", "masked", "reference"):
            outs[name] = backend(name).attend(call)
        torch.testing.assert_close(outs["tiled"], outs["reference"])
        torch.testing.assert_close(outs["masked"], outs["reference"])
    assert len(built) == 1
    other = case(plan, 51)
    torch.testing.assert_close(backend("tiled").attend(other), backend("reference").attend(other))
    assert len(built) == 2


def test_the_cache_does_not_hold_the_batch():
    call = case("neighbor(radius=2) | global(cls)", 33)
    gone = weakref.ref(call.rule)
    for name in ("tiled", "masked"):
        backend(name).attend(call)
    del call
    gc.collect()
    assert gone() is None


def test_a_rule_of_other_global_tokens_is_not_mistaken():
    """Equal but for the content of a tensor, which two batches of one shape may differ in."""
    call = case("full()", 24, "none")
    for place in (0, 7):
        marked = (torch.arange(24) == place).expand(2, -1)
        groups = ((tuple(range(HEADS)), Rule((Band(1), GlobalTokens(marked)))),)
        one = replace(call, rule=LayerRule(groups, HEADS, call.rule.valid, padded=False))
        expected = backend("reference").attend(one)
        for name in ("tiled", "masked"):
            torch.testing.assert_close(backend(name).attend(one), expected)
