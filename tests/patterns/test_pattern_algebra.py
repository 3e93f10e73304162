"""Joining patterns: what |, & and - allow, and how they are written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparseattn as sa
from sparseattn.pattern import Pattern, catalogue
from sparseattn.rules import AllPairs
from tests.patterns.batches import FIXED, samples
from tests.patterns.oracles import oracle

quick = settings(deadline=None, derandomize=True, max_examples=40, database=None)

atoms = st.one_of(
    st.builds(sa.neighbor, st.integers(0, 4)),
    st.builds(sa.random, st.integers(1, 5), st.integers(0, 3), st.booleans()),
    st.builds(
        sa.longformer,
        st.integers(0, 2),
        st.one_of(st.integers(0, 3), st.sampled_from([(), ("cls",), ("sep", "cls")])),
    ),
    st.builds(getattr(sa, "global"), st.just(("cls",)), st.integers(0, 2), st.just((1, 4))),
    st.sampled_from([sa.parse(kind.example) for kind in catalogue.values()]),
)


def _grow(inner: st.SearchStrategy[Pattern]) -> st.SearchStrategy[Pattern]:
    join = st.sampled_from([Pattern.__or__, Pattern.__and__, Pattern.__sub__])
    return st.one_of(
        st.builds(lambda op, a, b: op(a, b), join, inner, inner),
        st.builds(sa.matched_random, inner, st.integers(0, 2)),
    )


expressions = st.recursive(atoms, _grow, max_leaves=5)


@quick
@given(expressions)
def test_an_expression_parses_back(pattern):
    assert sa.parse(str(pattern)) == pattern


@quick
@given(expressions, samples(longest=6, texts=2))
def test_an_expression_is_its_double_loop(pattern, sample):
    tokens = sample.tokens
    dense = pattern.rule(tokens, 1).dense(sample.length)
    dense = dense.expand(len(sample.texts), 1, -1, -1)
    for row, (text, start) in enumerate(zip(sample.texts, sample.starts, strict=True)):
        allows = oracle(pattern, text, 1)
        n = len(text)
        want = torch.tensor([[allows(q, k) for k in range(n)] for q in range(n)])
        assert torch.equal(dense[row, 0, start : start + n, start : start + n], want)


N, R, S = sa.neighbor(1), sa.random(1), sa.self()


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (N | R | S, "neighbor(radius=1) | random(degree=1) | self()"),
        (N | (R | S), "neighbor(radius=1) | (random(degree=1) | self())"),
        (N | R & S, "neighbor(radius=1) | random(degree=1) & self()"),
        ((N | R) & S, "(neighbor(radius=1) | random(degree=1)) & self()"),
        (N & R | S, "neighbor(radius=1) & random(degree=1) | self()"),
        (N & R - S, "neighbor(radius=1) & random(degree=1) - self()"),
        ((N & R) - S, "(neighbor(radius=1) & random(degree=1)) - self()"),
        (N - R - S, "neighbor(radius=1) - random(degree=1) - self()"),
        (N - (R - S), "neighbor(radius=1) - (random(degree=1) - self())"),
        (N - (R | S), "neighbor(radius=1) - (random(degree=1) | self())"),
        (sa.matched_random(N - S), "matched_random(neighbor(radius=1) - self())"),
        (sa.matched_random((N | R) & S), "matched_random((neighbor(radius=1) | random(degree=1)) "
         "& self())"),
        (sa.matched_random(N, seed=1, per_layer=False),
         "matched_random(neighbor(radius=1), seed=1, per_layer=false)"),
        (sa.random(3, 0, False), "random(degree=3, per_layer=false)"),
        (sa.bigbird(1, 2, globals=2), "bigbird(radius=1, random=2, globals=2)"),
        (sa.bigbird(1, 2, globals=[]), "bigbird(radius=1, random=2, globals=[])"),
        (sa.longformer(1, ["cls", "sep"]), "longformer(radius=1, globals=[cls, sep])"),
    ],
)  # fmt: skip
def test_brackets_stand_only_where_needed(pattern, text):
    assert str(pattern) == text
    assert sa.parse(text) == pattern
    assert sa.parse(text.replace(" ", "")) == pattern


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("neighbor(3)", "neighbor(radius=3)"),
        ("random(3, seed=2)", "random(degree=3, seed=2)"),
        ("random(3, per_layer=False)", "random(degree=3, per_layer=false)"),
        ("global('cls')", "global(cls)"),
        ("matched_random(pattern=self() | full(), seed=1)", "matched_random(self() | full(), 1)"),
        ("((neighbor(1)))", "neighbor(radius=1)"),
        ("neighbor(radius=007)", "neighbor(radius=7)"),
        (" neighbor( radius = 1 ) ", "neighbor(radius=1)"),
    ],
)
def test_other_spellings(text, same):
    assert sa.parse(text) == sa.parse(same)


def test_a_union_with_everything_is_known_to_be_everything():
    for spec in ("neighbor(1) | full()", "full() | (self() | random(2))"):
        rule = sa.parse(spec).rule(FIXED.tokens)
        assert [type(part) for part in rule.parts] == [AllPairs]


def test_needs_and_layers_come_from_both_sides():
    pattern = sa.parse("dependency() | sentence() & random(2)")
    assert pattern.needs == {"words", "heads", "sentences"}
    assert pattern.varies_by_layer
    assert not sa.parse("neighbor(1) - random(2, per_layer=false)").varies_by_layer
    assert sa.parse("matched_random(random(2), per_layer=false)").varies_by_layer
    assert sa.parse("matched_random(similarity(2))").needs == {"ids", "special", "embedding"}
    assert sa.parse("longformer(1, globals=[sep])").needs == {"separators"}


@pytest.mark.parametrize("symbol", "|&-")
def test_the_layer_is_the_first_unless_it_is_named(symbol):
    tokens = sa.TokenBatch.of_lengths(40)
    pattern = sa.parse(f"neighbor(8) {symbol} random(degree=4)")
    rules = [pattern.rule(tokens), pattern.rule(tokens, 0), pattern.rule(tokens, 1)]
    unnamed, first, second = (rule.dense(tokens.length) for rule in rules)
    assert torch.equal(unnamed, first)
    assert not torch.equal(first, second)
