"""What `auto` chooses, and the file of costs behind it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sparseattn import auto
from sparseattn.auto import Cost, Workload, choose, select
from sparseattn.backend import backend
from sparseattn.errors import BackendError
from tests.backends.test_conformance import case

#: Seconds an entry: tiled costs ten times as much for each, and computes far fewer.
COSTS = {"masked": Cost(1e-4, 1e-9), "tiled": Cost(2e-4, 1e-8)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    clear = auto.costs.cache_clear
    clear()
    yield tmp_path
    clear()


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(auto, "costs", lambda workload: COSTS)


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
    for bias, name in ((None, "tiled"), (torch.zeros(1, 1, 1, 1), "masked"), (None, "tiled")):
        chosen, reason = choose(replace(call, bias=bias))
        assert chosen.name == name
        assert ("adds no bias" in reason) == (name == "masked")


def test_a_decision_is_made_once_for_a_rule_and_workload(known, monkeypatch):
    decisions, decide = [], auto._decide
    monkeypatch.setattr(auto, "_decide", lambda *a: decisions.append(a) or decide(*a))
    call = single("neighbor(radius=2)", 300)
    for _ in range(3):
        choose(call)
    choose(replace(call, dropout=0.1))
    choose(replace(call, query=call.query.clone().requires_grad_()))
    assert [workload for _, workload, _ in decisions] == [
        Workload("cpu", torch.float32, trains, drops)
        for trains, drops in ((False, False), (False, True), (True, False))
    ]


def test_costs_are_measured_once_and_kept(folder, monkeypatch):
    """Which changes neither threads nor random numbers."""
    workload, before = Workload.of(single("full()", 4)), torch.get_num_threads()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch.set_num_threads(3)
    try:
        measured = auto.costs(workload)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.rand(3), expected)
    assert set(measured) == {"masked", "tiled"}
    assert all(line.slope > 0 and line.overhead >= 0 for line in measured.values())
    assert list(json.loads((folder / "costs.json").read_text())) == [str(workload)]
    auto.costs.cache_clear()
    monkeypatch.setattr(auto, "_measure", lambda _: pytest.fail("measured again"))
    assert auto.costs(workload) == measured


@pytest.mark.parametrize(
    ("name", "launching", "slope"), [("masked", 5e-5, 2.5e-12), ("tiled", 2e-3, 1.2e-10)]
)
def test_the_line_of_a_gpu_is_drawn_where_launching_is_not_all(monkeypatch, name, launching, slope):
    """Where a GPU is not busy, it takes as long as launching does; numbers as of an H100."""
    example = auto._example
    monkeypatch.setattr(auto, "_example", lambda n, s: example(n, replace(s, device="cpu")))
    monkeypatch.setattr(auto, "_LENGTHS", {"cuda": {name: auto._LENGTHS["cuda"][name]}})

    def seconds(_name, call, _workload):
        return max(launching, slope * backend(name).computed(call.rule))

    monkeypatch.setattr(auto, "_seconds", seconds)
    line = Cost(*auto._measure(Workload("cuda", torch.bfloat16, False, False))[name])
    entries = {"masked": 12 * 16384**2, "tiled": 28e6}[name]
    expected = max(launching, slope * entries)
    assert expected / 1.5 < line.seconds(entries, 64, 1) < 1.5 * expected


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"masked": ["x", 1]}}', '{"a": 3}'])
def test_a_damaged_file_is_measured_anew(folder, monkeypatch, text):
    (folder / "costs.json").write_text(text)
    monkeypatch.setattr(auto, "_measure", lambda _: {"masked": [0.5, 1e-9]})
    assert auto.costs(Workload.of(single("full()", 4))) == {"masked": Cost(0.5, 1e-9)}


def test_a_folder_that_cannot_be_written_is_no_error(folder, monkeypatch):
    (folder / "file").touch()
    monkeypatch.setenv("SPARSEATTN_CACHE", str(folder / "file" / "below"))
    monkeypatch.setattr(auto, "_measure", lambda _: {"masked": [0.5, 1e-9]})
    assert auto.costs(Workload.of(single("full()", 4))) == {"masked": Cost(0.5, 1e-9)}


def test_a_backend_that_fails_when_it_is_measured_is_left_out(monkeypatch):
    def fail(_self, _call):
        raise BackendError("backend 'tiled' failed its self-test")

    monkeypatch.setattr(type(backend("tiled")), "attend", fail)
    chosen, reason = choose(single("neighbor(radius=2)", 2000))
    assert chosen.name == "masked"
    assert "tiled could not be measured" in reason


def test_costs_without_the_kernel_are_others(monkeypatch):
    workload = Workload.of(single("full()", 4))
    monkeypatch.setattr(auto, "missing", lambda *_: None)
    assert "no kernel" not in str(workload)
    monkeypatch.setattr(auto, "missing", lambda *_: "numba is not installed")
    assert "no kernel" in str(workload)
