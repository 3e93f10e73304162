"""What `auto` picks, and the file of costs it picks by."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel

import sparseattn as sa
from sparseattn import auto as cost
from sparseattn.auto import Line, Situation, choose, select
from sparseattn.backend import backend
from sparseattn.errors import BackendError
from tests.backends.test_conformance import case

#: Seconds an entry: tiled costs ten times as much for each, and computes far fewer.
COSTS = {"masked": Line(1e-4, 1e-9), "tiled": Line(2e-4, 1e-8)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    clear = cost.lines.cache_clear
    clear()
    yield tmp_path
    clear()


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(cost, "lines", lambda situation: COSTS)


def single(plan, length, **changes):
    return replace(case(plan, length, "none", dtype=torch.float32), **changes)


@pytest.mark.parametrize(
    ("plan", "length", "expected", "why"),
    [
        ("neighbor(radius=2)", 128, "masked", "at most 128 tokens"),
        ("neighbor(radius=2)", 129, "masked", "by costs measured"),
        ("neighbor(radius=2)", 2000, "tiled", "by costs measured"),
        ("neighbor(radius=1900)", 2000, "masked", "by costs measured"),
        ("full()", 2000, "masked", "every pair is allowed"),
        ("block(size=4)", 300, "masked", "no structure"),
    ],
)
def test_choices(known, plan, length, expected, why):
    call = single(plan, length)
    chosen, reason = select("auto", call)
    assert chosen.name == expected
    assert why in reason
    assert reason.startswith("auto: ")


def test_a_bias_leaves_one_backend(known):
    call = single("neighbor(radius=2)", 2000)
    assert choose(call)[0].name == "tiled"
    biased = replace(call, bias=torch.zeros(1, 1, 1, 1))
    chosen, reason = choose(biased)
    assert chosen.name == "masked"
    assert "adds no bias" in reason
    assert choose(call)[0].name == "tiled"


def test_a_decision_is_made_once_for_a_rule_and_situation(known, monkeypatch):
    made = []
    decide = cost._decide
    monkeypatch.setattr(cost, "_decide", lambda *a: made.append(a) or decide(*a))
    call = single("neighbor(radius=2)", 300)
    for _ in range(3):
        choose(call)
    choose(replace(call, dropout=0.1))
    choose(replace(call, query=call.query.clone().requires_grad_()))
    assert [situation for _, situation, _ in made] == [
        Situation("cpu", torch.float32, trains, drops)
        for trains, drops in ((False, False), (False, True), (True, False))
    ]


def test_costs_are_measured_once_and_kept(folder, monkeypatch):
    situation = Situation.of(single("full()", 4))
    measured = cost.lines(situation)
    assert set(measured) == {"masked", "tiled"}
    assert all(line.slope > 0 and line.overhead >= 0 for line in measured.values())
    kept = json.loads((folder / "costs.json").read_text())
    assert list(kept) == [str(situation)]
    cost.lines.cache_clear()
    monkeypatch.setattr(cost, "_measured", lambda _: pytest.fail("measured again"))
    assert cost.lines(situation) == measured


@pytest.mark.parametrize(
    ("name", "launching", "slope"), [("masked", 5e-5, 2.5e-12), ("tiled", 2e-3, 1.2e-10)]
)
def test_the_line_of_a_gpu_is_drawn_where_launching_is_not_all(monkeypatch, name, launching, slope):
    """Where a GPU is not busy, it takes as long as launching does; numbers as of an H100."""
    example = cost._example
    monkeypatch.setattr(cost, "_example", lambda n, s: example(n, replace(s, device="cpu")))
    monkeypatch.setattr(cost, "CANDIDATES", {"cuda": (name,)})

    def seconds(_name, call, _situation):
        return max(launching, slope * backend(name).computed(call.rule))

    monkeypatch.setattr(cost, "_seconds", seconds)
    line = Line(*cost._measured(Situation("cuda", torch.bfloat16, False, False))[name])
    entries = {"masked": 12 * 16384**2, "tiled": 28e6}[name]
    expected = max(launching, slope * entries)
    assert expected / 1.5 < line.seconds(entries, 64, 1) < 1.5 * expected


def test_the_number_of_threads_is_left_as_it_was(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        cost.lines(Situation("cpu", torch.float32, True, True))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_measuring_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    cost.lines(Situation("cpu", torch.float32, True, True))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"masked": ["x", 1]}}', '{"a": 3}'])
def test_a_damaged_file_is_measured_anew(folder, monkeypatch, text):
    (folder / "costs.json").write_text(text)
    monkeypatch.setattr(cost, "_measured", lambda _: {"masked": [0.5, 1e-9]})
    assert cost.lines(Situation.of(single("full()", 4))) == {"masked": Line(0.5, 1e-9)}


def test_a_folder_that_cannot_be_written_is_no_error(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("SPARSEATTN_CACHE", str(folder / "file" / "below"))
    monkeypatch.setattr(cost, "_measured", lambda _: {"masked": [0.5, 1e-9]})
    assert cost.lines(Situation.of(single("full()", 4))) == {"masked": Line(0.5, 1e-9)}


def test_a_model_records_what_was_picked(known):
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=2048,
    )  # fmt: skip
    model = sa.sparsify(BertModel(config).eval(), "neighbor(radius=2) | global(cls)")
    for length, name in ((100, "masked"), (2000, "tiled")):
        batch = {"input_ids": torch.ones(1, length, dtype=torch.int64)}
        with torch.no_grad():
            model(**batch)
        report = sa.describe(model, batch)
        assert report.layers[0].backend.startswith(name)
        assert (report.block_density < 0.1) == (name == "tiled")


def test_a_backend_that_fails_when_it_is_measured_is_left_out(monkeypatch):
    def fail(_self, _call):
        raise BackendError("backend 'tiled' failed its self-test")

    monkeypatch.setattr(type(backend("tiled")), "attend", fail)
    chosen, reason = choose(single("neighbor(radius=2)", 2000))
    assert chosen.name == "masked"
    assert "tiled could not be measured" in reason


def test_costs_without_the_kernel_are_others(monkeypatch):
    situation = Situation.of(single("full()", 4))
    monkeypatch.setattr(cost, "missing", lambda *_: None)
    before = str(situation)
    monkeypatch.setattr(cost, "missing", lambda *_: "numba is not installed")
    assert "no kernel" in str(situation)
    assert str(situation) != before
