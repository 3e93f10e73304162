"""What every discovered pattern must hold to, whatever it is."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings

import sparseattn as sa
from sparseattn.annotations import ANNOTATIONS
from sparseattn.errors import AnnotationError
from sparseattn.pattern import Pattern, catalogue
from sparseattn.rules import LayerRule
from tests.patterns.batches import FIXED, Sample, samples
from tests.patterns.oracles import ORACLES, oracle

HEADS = (2,) * 3
EXAMPLES = {name: kind.example for name, kind in catalogue.items()}
#: Arguments that the examples leave alone.
MORE = [
    "neighbor(radius=0)",
    "neighbor(radius=2147483647)",
    "dilated(radius=1, dilation=3)",
    "dilated(radius=3, dilation=1)",
    "strided(stride=1)",
    "strided(stride=3)",
    "block(size=1)",
    "block(size=3)",
    "block(size=1000)",
    "elastic(share=0)",
    "elastic(share=0.25)",
    "elastic(share=1)",
    "irregular(radii=[1, 2], weights=[0, 1], seed=4)",
    "irregular(radii=[0, 1, 3, 9], weights=[1, 2, 0.5, 1e-3], seed=9)",
    "random(degree=1, per_layer=false)",
    "random(degree=6, seed=5)",
    "random(degree=100)",
    "random(degree=3, drawn=5)",
    "random(degree=2, seed=2, per_layer=false, drawn=16)",
    "dependency(hops=2)",
    "dependency(hops=5)",
    "part_of_speech(keep=[punct])",
    "part_of_speech(keep=[x, adp, det, aux, cconj, sconj, pron, part, num, sym, intj])",
    "global(cls, sep)",
    "global(first=2)",
    "global(sep, positions=[3, 50])",
    "global(cls, columns=false)",
    "global(sep, first=3, rows=false)",
    "segment(query=0)",
    "segment(key=1)",
    "segment(query=0, key=0)",
    "neighbor(radius=1) & segment(query=1) | segment(key=0) | global(cls, columns=false)",
    "(neighbor(radius=2) | global(cls)) - segment(query=0, key=1)",
    "similarity(k=1)",
    "similarity(k=100)",
    "similarity(k=1, other_sentence=true)",
    "similarity(k=100, other_sentence=true)",
    "bigbird(radius=0, random=1, globals=[cls, sep], seed=3)",
    "bigbird(radius=1, random=0, globals=0)",
    "bigbird(radius=1, random=2, globals=2)",
    "longformer(radius=0, globals=2)",
    "longformer(radius=1, globals=[sep])",
    "matched_random(full())",
    "matched_random(dependency(), keep=global(cls, sep))",
    "matched_random(part_of_speech(keep=[noun, verb, adj]), seed=2, keep=global(cls, sep))",
    "matched_random(part_of_speech(keep=[noun, verb, adj]) | global(cls))",
    "matched_random(similarity(k=2), seed=3, keep=neighbor(radius=1) | global(first=2))",
    "matched_random(random(degree=2) | neighbor(radius=1), per_layer=false)",
    "matched_random(dependency() | similarity(k=1), seed=9)",
]
every = pytest.mark.parametrize("spec", [*EXAMPLES.values(), *MORE])
quick = settings(deadline=None, derandomize=True, max_examples=10, database=None)


def compiled(pattern: Pattern, sample: Sample, layer: int = 0) -> torch.Tensor:
    """The mask that the plan makes. Shape: [batch, length, length]."""
    rule = sa.Plan.of(pattern).compile(sample.tokens, HEADS).layers[layer]
    dense = rule.dense
    assert dense.shape == (len(sample.texts), 1, sample.length, sample.length)
    return dense[:, 0]


def expected(pattern: Pattern, sample: Sample, layer: int, own: bool) -> torch.Tensor:
    """What a double loop allows; with `own`, every token may attend to itself."""
    out = torch.zeros(len(sample.texts), sample.length, sample.length, dtype=torch.bool)
    for row, (text, start) in enumerate(zip(sample.texts, sample.starts, strict=True)):
        allows = oracle(pattern, text, layer)
        for q in range(len(text)):
            for k in range(len(text)):
                out[row, start + q, start + k] = allows(q, k) or (own and q == k)
    return out


def test_each_pattern_has_an_oracle_and_each_oracle_a_pattern():
    assert set(ORACLES) == set(catalogue)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_pattern_explains_itself(name):
    kind = catalogue[name]
    for text in (kind.formula, kind.degrees, kind.source, kind.example):
        assert text
        assert text == text.strip()
        assert "\n" not in text
    assert ">>> " in (inspect.getdoc(kind) or "") or name == "full"
    for field in fields(kind):
        assert f"    {field.name}: " in (kind.__doc__ or ""), f"{field.name} is not documented"
    assert sa.parse(kind.example).name == name
    assert getattr(sa, name) is kind


@every
@quick
@given(samples())
def test_the_rule_is_the_double_loop(spec, sample):
    pattern = sa.parse(spec)
    valid = sample.tokens.valid
    real = valid[:, :, None] & valid[:, None, :]
    for layer in (0, 2):
        rule = pattern.rule(sample.tokens, layer)
        dense = rule.dense(sample.length).expand(len(valid), 1, -1, -1)[:, 0]
        assert torch.equal(dense & real, expected(pattern, sample, layer, own=False))
        assert torch.equal(compiled(pattern, sample, layer), expected(pattern, sample, layer, True))


@every
@quick
@given(samples())
def test_a_tile_is_a_part_of_the_whole(spec, sample):
    rule = sa.parse(spec).rule(sample.tokens, 1)
    whole = rule.dense(sample.length)
    for q, k in [(slice(1, None, 2), slice(0, 3)), (slice(0, 2), slice(2, None)), (slice(0),) * 2]:
        index = torch.arange(sample.length)
        assert torch.equal(rule.allowed(index[q], index[k]), whole[:, :, q, k])


@every
def test_it_reads_what_it_needs_and_nothing_else(spec):
    pattern, tokens = sa.parse(spec), FIXED.tokens
    assert pattern.needs <= set(ANNOTATIONS)
    rest = {name: None for name in ANNOTATIONS if name not in pattern.needs}
    bare = replace(tokens, **rest)
    ours, theirs = (pattern.rule(t, 1).dense(FIXED.length) for t in (bare, tokens))
    assert torch.equal(ours, theirs)
    for name in pattern.needs:
        with pytest.raises(AnnotationError, match=f"needs {name!r}") as caught:
            pattern.rule(replace(tokens, **{name: None}), 1)
        assert ANNOTATIONS[name] in str(caught.value)
        assert "\n" not in str(caught.value)


@every
def test_it_says_whether_layers_differ(spec):
    pattern = sa.parse(spec)
    masks = [pattern.rule(FIXED.tokens, layer).dense(FIXED.length) for layer in range(3)]
    same = all(torch.equal(masks[0], mask) for mask in masks)
    saturated = spec in ("random(degree=100)", "matched_random(full())")
    assert same == (not pattern.varies_by_layer or saturated)


@every
def test_its_string_parses_back(spec):
    pattern = sa.parse(spec)
    again = sa.parse(str(pattern))
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert type(again) is type(pattern)
    assert str(again) == str(pattern)
    assert sa.Plan.from_json(sa.Plan.of(pattern).to_json()) == sa.Plan.of(pattern)


@every
def test_a_batch_of_padding_only_allows_nothing(spec):
    tokens = FIXED.tokens
    empty = replace(tokens, valid=torch.zeros_like(tokens.valid))
    rule = sa.parse(spec).rule(empty, 0)
    assert not LayerRule((((0, 1), rule),), 2, empty.valid).dense.any()


@pytest.mark.gpu
@every
def test_a_gpu_allows_the_same(spec):
    tokens = FIXED.tokens
    there = {f.name: getattr(tokens, f.name).cuda() for f in fields(tokens)}
    ours, theirs = (
        sa.Plan.of(spec).compile(t, HEADS).layers[2].dense.cpu()
        for t in (tokens, replace(tokens, **there))
    )
    assert torch.equal(ours, theirs)
