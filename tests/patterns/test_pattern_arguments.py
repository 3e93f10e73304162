"""What each argument does, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

import sparseattn as sa
from sparseattn.errors import PatternError, SpecError
from sparseattn.pattern import catalogue
from sparseattn.tokens import TokenBatch
from tests.patterns.batches import FIXED

#: Specs, and others that differ from each in one argument.
EFFECTS = {
    "bigbird(1, 1)": [
        "bigbird(2, 1)",
        "bigbird(1, 2)",
        "bigbird(1, 1, globals=[sep])",
        "bigbird(1, 1, seed=1)",
    ],
    "block(3)": ["block(4)"],
    "dilated(1, 2)": ["dilated(2, 2)", "dilated(1, 3)"],
    "elastic(0.1)": ["elastic(0.2)"],
    "global(cls)": ["global(cls, sep)", "global(cls, rows=false)", "global(cls, columns=false)"],
    "global(first=1)": ["global(first=2)"],
    "global(positions=[1])": ["global(positions=[2])"],
    "irregular([0, 1], [1, 1])": [
        "irregular([0, 2], [1, 1])",
        "irregular([0, 1], [1, 3])",
        "irregular([0, 1], [1, 1], seed=1)",
    ],
    "longformer(1)": ["longformer(2)", "longformer(1, globals=3)"],
    "matched_random(block(2))": [
        "matched_random(block(3))",
        "matched_random(block(2), seed=1)",
        "matched_random(block(2), keep=global(cls))",
        "matched_random(block(2), per_layer=false)",
    ],
    "neighbor(1)": ["neighbor(2)"],
    "dependency()": ["dependency(2)"],
    "part_of_speech([noun])": ["part_of_speech([noun, verb, det])"],
    "random(1)": [
        "random(2)",
        "random(1, seed=1)",
        "random(1, per_layer=false)",
        "random(1, drawn=4)",
    ],
    "segment(query=0)": ["segment(query=1)"],
    "segment(key=0)": ["segment(key=1)"],
    "similarity(1)": ["similarity(2)", "similarity(1, other_sentence=true)"],
    "strided(3)": ["strided(4)"],
}


def mask(spec: str, layer: int = 1) -> torch.Tensor:
    """The compiled mask of the fixed batch."""
    return sa.Plan.of(spec).compile(FIXED.tokens, (1,) * 2).layers[layer].dense[:, 0]


def test_every_argument_has_an_effect():
    changed = []
    for one, others in EFFECTS.items():
        for other in others:
            a, b = sa.parse(one), sa.parse(other)
            differ = [f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)]
            changed += [(b.name, name) for name in differ]
            assert not torch.equal(mask(one), mask(other)), other
    arguments = [(n, field.name) for n, kind in catalogue.items() for field in fields(kind)]
    assert sorted(changed) == sorted(arguments)


def test_numpy_numbers_and_lists_are_taken():
    assert sa.neighbor(np.int64(3)) == sa.neighbor(3)
    assert str(sa.neighbor(np.int32(3))) == "neighbor(radius=3)"
    mix = sa.longformer(1, globals=["cls"])
    assert mix == sa.longformer(1)
    assert hash(mix) == hash(sa.longformer(1))


WHOLE = "must be a whole number >="
TAGS = (
    "adj, adp, adv, aux, cconj, det, intj, noun, num, part, pron, propn, punct, sconj, sym, verb, x"
)
MESSAGES = {
    # patterns and arguments by name
    "neighbour(radius=2)": "unknown pattern 'neighbour' (did you mean 'neighbor'?); choose from: "
    f"{', '.join(catalogue)}; at column 1 of 'neighbour(radius=2)'",
    "neighbor(radios=2)": "neighbor(): unknown argument 'radios' (did you mean 'radius'?); choose "
    "from: radius",
    "self(2)": "self() takes at most 0 arguments (none); got 1",
    "neighbor(1, 2)": "neighbor() takes at most 1 argument (radius); got 2",
    "neighbor()": "neighbor() needs the argument 'radius'",
    "random()": "random() needs the argument 'degree'",
    "neighbor(2, radius=3)": "neighbor(): argument 'radius' is given twice",
    "neighbor(radius=2, radius=3)": "argument 'radius' is given twice; at column 20 of "
    "'neighbor(radius=2, radius=3)'",
    # values
    "neighbor(radius=-1)": f"neighbor(radius=-1): radius {WHOLE} 0",
    "neighbor(radius=1.5)": f"neighbor(radius=1.5): radius {WHOLE} 0",
    "neighbor(radius=true)": f"neighbor(radius=true): radius {WHOLE} 0",
    "neighbor(radius=two)": f"neighbor(radius='two'): radius {WHOLE} 0",
    "neighbor(radius=1e400)": f"neighbor(radius=inf): radius {WHOLE} 0",
    "neighbor(radius=2147483648)": "neighbor(radius=2147483648): radius must be at most 2147483647",
    "dilated(radius=-2, dilation=1)": f"dilated(radius=-2): radius {WHOLE} 0",
    "dilated(radius=2, dilation=0)": f"dilated(dilation=0): dilation {WHOLE} 1",
    "strided(stride=0)": f"strided(stride=0): stride {WHOLE} 1",
    "block(size=0)": f"block(size=0): size {WHOLE} 1",
    "random(degree=0)": f"random(degree=0): degree {WHOLE} 1",
    "random(degree=1, seed=-1)": f"random(seed=-1): seed {WHOLE} 0",
    "random(degree=1, per_layer=1)": "random(per_layer=1): per_layer must be true or false",
    "random(degree=3, drawn=2)": f"random(drawn=2): drawn {WHOLE} 3",
    "dependency(hops=0)": f"dependency(hops=0): hops {WHOLE} 1",
    "part_of_speech()": "part_of_speech() needs the argument 'keep'",
    "part_of_speech(noun)": "part_of_speech(keep='noun'): keep must be a list, such as [...]",
    "part_of_speech([])": f"part_of_speech(keep=[]): keep needs one or more of {TAGS}",
    "part_of_speech([noun, noun])": "part_of_speech(keep=[noun, noun]): keep takes each of "
    f"{TAGS} at most once",
    "part_of_speech([noun, vreb])": "part_of_speech(): unknown part of speech 'vreb' (did you mean "
    f"'verb'?); choose from: {TAGS}",
    "part_of_speech([NOUN])": "part_of_speech(): unknown part of speech 'NOUN'; choose from: "
    f"{TAGS}",
    "part_of_speech([3, [noun]])": "part_of_speech(): unknown part of speech 3; choose from: "
    f"{TAGS}",
    "similarity(k=0)": f"similarity(k=0): k {WHOLE} 1",
    "bigbird(radius=-1, random=1)": f"bigbird(radius=-1): radius {WHOLE} 0",
    "bigbird(radius=1, random=-1)": f"bigbird(random=-1): random {WHOLE} 0",
    "bigbird(1, 1, globals=-1)": f"bigbird(globals=-1): globals {WHOLE} 0",
    "bigbird(1, 1, globals=cls)": "bigbird(globals='cls'): globals must be a whole number or a "
    "list of cls, sep",
    "longformer(1, globals=[pad])": "longformer(globals=[pad]): globals takes each of cls, sep at "
    "most once",
    "longformer(1, globals=true)": "longformer(globals=true): globals must be a whole number or a "
    "list of cls, sep",
    "global()": "global() needs tokens: cls, sep, first=N or positions=[...]",
    "global(pad)": "global(): unknown token 'pad'; choose from: cls, sep, first=N, positions=[...]",
    "global(cls, cls)": "global(kinds=[cls, cls]): kinds takes each of cls, sep at most once",
    "global(cls, last=1)": "global(): unknown argument 'last'; choose from: first, positions, "
    "rows, columns",
    "global(cls, rows=0)": "global(rows=0): rows must be true or false",
    "global(cls, rows=false, columns=false)": "global() needs rows or columns; both are false",
    "segment()": "segment() needs query=N, key=N or both",
    "segment(query=-1)": f"segment(query=-1): query {WHOLE} 0",
    "segment(0, key=document)": "segment(key='document'): key must be a whole number >= 0",
    "global(first=-1)": f"global(first=-1): first {WHOLE} 0",
    "global(positions=[-1])": "global(positions=[-1]): positions must be whole numbers >= 0",
    "global(positions=3)": "global(positions=3): positions must be a list, such as [...]",
    "elastic(share=-0.1)": "elastic(share=-0.1): share must be a number from 0 to 1",
    "elastic(share=2)": "elastic(share=2): share must be a number from 0 to 1",
    "elastic(share=true)": "elastic(share=true): share must be a number from 0 to 1",
    "irregular(1, [1])": "irregular(radii=1): radii must be a list, such as [...]",
    "irregular([], [])": "irregular(radii=[]): radii must be ascending whole numbers >= 0",
    "irregular([2, 1], [1, 1])": "irregular(radii=[2, 1]): radii must be ascending whole numbers "
    ">= 0",
    "irregular([1, 2], [1])": "irregular(weights=[1]): weights must be as many as the radii, 2",
    "irregular([1], [0])": "irregular(weights=[0]): weights must be numbers >= 0, not all of them "
    "0",
    "irregular([1], [-1])": "irregular(weights=[-1]): weights must be numbers >= 0, not all of "
    "them 0",
    "irregular([1], [true])": "irregular(weights=[true]): weights must be numbers >= 0, not all of "
    "them 0",
    "matched_random(neighbor)": "matched_random(pattern='neighbor'): pattern must be a pattern, "
    "such as neighbor(radius=2)",
    "matched_random(self(), keep=cls)": "matched_random(keep='cls'): keep must be a pattern, "
    "such as global(cls)",
    "matched_random(self(), per_layer=no)": "matched_random(per_layer='no'): per_layer must be "
    "true or false",
    # spelling
    "": "expected a pattern, found the end; at column 1 of ''",
    "neighbor": "expected '(' after 'neighbor', found the end; at column 9 of 'neighbor'",
    "neighbor(radius=2": "expected ',', found the end; at column 18 of 'neighbor(radius=2'",
    "neighbor(radius=2))": "expected an operator (|, & or -), found ')'; at column 19 of "
    "'neighbor(radius=2))'",
    "neighbor(radius=)": "expected a pattern, found ')'; at column 17 of 'neighbor(radius=)'",
    "neighbor(2) | ": "expected a pattern, found the end; at column 15 of 'neighbor(2) | '",
    "neighbor(2) + self()": "unexpected '+'; at column 13 of 'neighbor(2) + self()'",
    "neighbor(2) self()": "expected an operator (|, & or -), found 'self'; at column 13 of "
    "'neighbor(2) self()'",
    "random(degree=2, 3)": "expected a named argument, found '3'; at column 18 of "
    "'random(degree=2, 3)'",
    "(self()": "expected ')', found the end; at column 8 of '(self()'",
    "global(positions=[1, 2)": "expected ',', found ')'; at column 23 of 'global(positions=[1, 2)'",
    "global('cls)": 'unexpected "\'"; at column 8 of "global(\'cls)"',
    "2": "expected a pattern, found '2'; at column 1 of '2'",
}


@pytest.mark.parametrize("spec", MESSAGES)
def test_a_wrong_spec_is_explained_in_one_line(spec):
    with pytest.raises(PatternError) as caught:
        sa.parse(spec)
    assert str(caught.value) == MESSAGES[spec]


def test_a_spec_error_knows_its_column():
    with pytest.raises(SpecError) as caught:
        sa.parse("self() | nothing()")
    assert caught.value.column == 9
    assert caught.value.text[caught.value.column :] == "nothing()"


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda: sa.parse("(" * 100_000 + "self()"), "nested too deeply; at column 1"),
        (lambda: sa.parse(" | ".join(["self()"] * 1000)), "joins at most 100 others in a row"),
        (lambda: sa.parse(" - ".join(["self()"] * 5000)), "joins at most 100 others in a row"),
        (
            lambda: sa.parse(f"global(positions=[{'9' * 40}])"),
            f"positions must be at most {2**31 - 1}",
        ),
        (lambda: sa.parse(f"neighbor({'9' * 5000})"), "radius must be a whole number >= 0"),
        (lambda: sa.neighbor(-1), r"^neighbor\(radius=-1\): radius must be"),
        (
            lambda: sa.matched_random("self()"),
            r"^matched_random\(pattern='self\(\)'\): pattern must",
        ),
    ],
)
def test_long_specs_are_no_crash_and_python_calls_are_checked(slip, message):
    with pytest.raises(PatternError, match=message):
        slip()


def test_as_many_patterns_as_may_be_joined_work_everywhere():
    text = " | ".join(f"neighbor(radius={radius})" for radius in range(101))
    pattern = sa.parse(text)
    assert str(pattern) == text
    assert hash(pattern) == hash(sa.parse(text))
    assert pattern.rule(TokenBatch.of_lengths(120)).dense(120).sum() == 120 * 201 - 100 * 101


def test_matched_random_refuses_a_pattern_whose_heads_differ():
    from sparseattn.pattern import Pattern
    from sparseattn.rules import Pairs, Rule

    class PerHead(Pattern):
        def rule(self, tokens, layer=0):
            return Rule((Pairs(torch.ones(1, 2, tokens.length, tokens.length).bool()),))

        def __str__(self):
            return "per_head()"

    with pytest.raises(PatternError, match=r"pattern must allow the same pairs in every head$"):
        sa.matched_random(PerHead()).rule(sa.TokenBatch.of_lengths(3))
