"""Plans: selections, JSON, compilation and counting."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import sparseattn as sa
from sparseattn.errors import PlanError, SparseAttnError
from sparseattn.patterns import similarity
from sparseattn.plan import Entry, Plan
from sparseattn.rules import AllPairs, Band
from sparseattn.selection import select_indices, spell_selection
from tests.patterns.batches import count_plan


@pytest.mark.parametrize(
    ("selection", "count", "expected"),
    [
        (":", 3, [0, 1, 2]),
        ("1:", 3, [1, 2]),
        ("-2:", 3, [1, 2]),
        (":1", 3, [0]),
        ("0,2", 3, [0, 2]),
        ("2,0,0", 3, [2, 0]),
        ("::2", 5, [0, 2, 4]),
        (" 0, 3: ", 5, [0, 3, 4]),
        (-1, 3, [2]),
        ([0, slice(2, None)], 4, [0, 2, 3]),
        (slice(-2, None), 4, [2, 3]),
        (range(2), 4, [0, 1]),
        (np.arange(2), 4, [0, 1]),
        (np.int64(-1), 3, [2]),
        ([], 4, []),
    ],
)
def test_selections(selection, count, expected):
    spelled = spell_selection(selection)
    assert select_indices(spelled, count, "layer") == expected
    assert spell_selection(spelled) == spelled


@pytest.mark.parametrize("value", ["a", "1:2:3:4", "1-2", "::0", "1.5", True, None, 1.0, object()])
def test_things_that_select_nothing(value):
    does_not = "parse" if isinstance(value, str) else "select"
    with pytest.raises(PlanError, match=f"does not {does_not}"):
        spell_selection(value)


def test_an_entry_that_has_no_effect_is_told():
    plan = Plan.of({"1": "neighbor(radius=1)", "2": "self()", ":2": "full()"})
    with pytest.warns(UserWarning, match=r"'layer 1: neighbor\(radius=1\)' has no effect"):
        plan.resolve([2] * 3)


def test_later_entries_override_earlier_ones():
    plan = Plan((*Plan.of("neighbor(1)").entries, *Plan.of("self()", "0", "1").entries))
    (first, second), (third,) = plan.resolve([2, 2])
    assert (str(first[1]), first[0]) == ("neighbor(radius=1)", (0,))
    assert (str(second[1]), second[0]) == ("self()", (1,))
    assert third[0] == (0, 1)


def test_what_no_entry_names_stays_dense():
    first, second = Plan.of("self()", "1").compile(sa.TokenBatch.of_lengths(4), [2, 2]).layers
    assert first.is_full
    assert second.dense.sum() == 4


def test_json_round_trip(tmp_path):
    plan = Plan.of({":3": "neighbor(2) | global(cls)", "3:": {"0,1": "random(degree=2, seed=5)"}})
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert hash(Plan.load(tmp_path / "plan.json")) == hash(plan)
    assert plan.entries[0] == Entry(sa.parse("neighbor(2) | global(cls)"), ":3", ":")


def test_what_a_plan_prints_makes_an_equal_one():
    plan = Plan.of({":3": "neighbor(2) | global(cls, sep)", "-1,0": {"0,2:": "self()"}})
    assert Plan.of(str(plan)) == Plan.of(plan.spelled) == plan
    assert str(Plan.of({1: {2: "self()"}, "-1": {"0,2": "self()"}, "0:1": "self()"})) == (
        "layer 1, head 2: self()\nlayer -1, heads 0,2: self()\nlayers 0:1: self()"
    )
    assert Plan.of({1: {2: "self()"}}).spelled == "layers 1, heads 2: self()"
    for text in ("layers 1: self();", " layer 1 : self()", "layers 1, heads :: self()"):
        assert Plan.of(text).entries == (Entry(sa.parse("self()"), "1"),)
    nothing = Plan.of({"": "self()", "1": {"": "self()"}})
    assert Plan.of(nothing.spelled) == nothing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers 1 self()", "'layers 1 self()' is no line of a plan, such as 'layers"),
        ("layers 1: self(); 2: self()", "'2: self()' is no line of a plan"),
        ("layers 1: slef()", "unknown pattern 'slef'"),
        ("layers one: self()", "'layers one: self()' is no line of a plan"),
        ("layers 1:2:3:4: self()", "layer or head selection '1:2:3:4' does not parse"),
        ("layers 1: self(); layers 2:", "'layers 2:' is no line of a plan"),
    ],
)
def test_lines_that_are_no_plan(text, message):
    with pytest.raises(SparseAttnError, match=re.escape(message)):
        Plan.of(text)
    with pytest.raises(PlanError, match="this plan names its own layers"):
        Plan.of("layers 1: self()", layers="2:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{}", "not a plan"),
        (b"[]", "not a plan"),
        (b'{"format": "sparseattn-plan-1", "entries": [{}]}', "have pattern, layers and heads"),
        (b'{"format": "sparseattn-plan-1", "entries": [], "shape": 6}', "lists the heads of each"),
        (b"{", "cannot read a plan from"),
        (b"\xff\xfe\x00", "cannot read a plan from"),
        (None, r"cannot read a plan from .*plan.json: No such"),
    ],
)
def test_files_that_hold_no_plan(text, message, tmp_path):
    if text is not None:
        (tmp_path / "plan.json").write_bytes(text)
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / "plan.json")


def test_a_plan_that_was_made_for_a_model_is_refused_on_another(tmp_path):
    Plan.of("self()", "0:2").save(tmp_path / "any.json")
    Plan(Plan.of("self()", "0:2").entries, (4, 4)).save(tmp_path / "plan.json")
    plan = Plan.load(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "any.json") == plan
    assert plan.resolve([4, 4]) == Plan.load(tmp_path / "any.json").resolve([4, 4])
    for heads, there in (([4] * 4, "4 layers of 4 heads"), ([4, 8], "2 layers of 4 or 8 heads")):
        message = f"made for a model of 2 layers of 4 heads, and this one has {there}$"
        with pytest.raises(PlanError, match=message):
            plan.resolve(heads)


def test_layers_with_the_same_pattern_share_a_rule():
    for spec, shared in (("neighbor(1) | random(2)", False), ("neighbor(1)", True)):
        layers = Plan.of(spec, "1:").compile(sa.TokenBatch.of_lengths(9), [2] * 4).layers
        assert (layers[1] is layers[2]) == (layers[1] is layers[3]) == shared


def test_heads_with_a_part_of_their_patterns_in_common_share_its_rule(monkeypatch):
    asked = []
    nearest = similarity.nearest_by_piece
    monkeypatch.setattr(similarity, "nearest_by_piece", lambda *x: asked.append(0) or nearest(*x))
    plan = {
        0: {"0": "neighbor(1) | similarity(1)", "1": "similarity(1) | global(cls)"},
        1: {"1": "(neighbor(2) | similarity(1)) - self()"},
    }
    tokens = sa.TokenBatch(
        torch.ones(1, 5, dtype=torch.bool),
        ids=torch.tensor([[0, 1, 2, 3, 1]]),
        special=torch.arange(5)[None] == 0,
        embedding=torch.eye(4),
    )
    Plan.of(plan).compile(tokens, [2, 2])
    assert len(asked) == 1
    tokens.embedding.neg_()  # another compile does not trust what was made before
    Plan.of(plan).compile(tokens, [2, 2])
    assert len(asked) == 2


def test_windows_of_the_stock_model_are_kept():
    tokens = sa.TokenBatch.of_lengths(9)
    plan = Plan.of("global(cls)", "1:")
    local = plan.compile(tokens, [2, 2], windows=[2, None])
    assert isinstance(local.layers[0].groups[0][1].parts[0], Band)
    assert local.layers[0].dense.sum() == 9 * 5 - 6
    cut = plan.compile(tokens, [2, 2], windows=[None, 2])
    assert isinstance(cut.layers[0].groups[0][1].parts[0], AllPairs)
    assert cut.layers[1].dense.sum() == 9 + 2 * 2


def test_counting_equals_a_double_loop():
    tokens = sa.TokenBatch.of_lengths(11, 6, 1)
    plan = Plan.of({"0": "neighbor(2)", "1": {"1": "global(first=2)"}})
    report = count_plan(plan, tokens, [2, 3])
    allowed, valid, degrees = 0, 0, {}
    for n in (11, 6, 1):
        for layer, heads in ((0, 2), (1, 3)):
            for head in range(heads):
                for q in range(n):
                    keys = [
                        k
                        for k in range(n)
                        if (layer == 0 and abs(q - k) <= 2)
                        or (layer == 1 and (head != 1 or q < 2 or k < 2 or q == k))
                    ]
                    allowed += len(keys)
                    valid += n
                    degrees[len(keys)] = degrees.get(len(keys), 0) + 1
    assert (report.allowed, report.valid) == (allowed, valid)
    assert report.degrees == dict(sorted(degrees.items()))
    assert report.sparsity == pytest.approx(1 - allowed / valid)
    assert report.mean_degree == pytest.approx(allowed / sum(degrees.values()))


def test_receptive_field_equals_a_search():
    plan = Plan.of({"0": "random(degree=1)", "1": "neighbor(1)", "2": {"0": "random(degree=1)"}})
    tokens = sa.TokenBatch.of_lengths(17)
    compiled, report = plan.compile(tokens, [2] * 3), count_plan(plan, tokens, [2] * 3)
    masks = [rule.dense.any(dim=1)[0] for rule in compiled.layers]
    for depth in range(3):
        seen = {0}
        for mask in reversed(masks[: depth + 1]):
            seen = {k for q in seen for k in torch.nonzero(mask[q]).flatten().tolist()}
        assert report.layers[depth].reaches_cls == pytest.approx(len(seen) / 17)


@pytest.mark.parametrize("where", [{"layers": "4:2"}, {"layers": ""}, {"heads": "2:2"}])
def test_a_selection_that_names_nothing_is_an_error(where):
    (text,) = where.values()
    with pytest.raises(sa.errors.PlanError, match=f"selection {text!r} names none of the model's"):
        sa.Plan.of("self()", **where).resolve([12] * 6)
