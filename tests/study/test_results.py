"""The table of trials, and what the report gets to see."""

import csv as plain_csv
import os
import re

import pytest
from pyarrow import parquet

from sparseattn.errors import StudyError
from sparseattn.report import write_report
from sparseattn.report.data import load_study
from sparseattn.report.setting import spec_text
from sparseattn.stats import measures
from sparseattn.study import record
from sparseattn.study.grid import Arm
from sparseattn.study.results import rebuild
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study
from tests.study import fakes

AWKWARD = 'a "quoted", one\nwith =lines; and 1e5'


@pytest.fixture
def study(tmp_path):
    """A study with a dense arm, a sparse one and a trial that failed."""
    spec = fakes.make(["x"], seeds=2).spec
    arms = (
        Arm("dense", "dense", ":", {}, {}),
        Arm(AWKWARD, "neighbor(radius=1)", "-3:", {}, {}),
        Arm("nan", "neighbor(radius=2)", ":", {}, {}),
    )
    made, store = Study(spec, arms, "f", {}), Store(tmp_path / "s")
    store.prepare()
    store.write(STUDY, made.to_json())
    for trial in made.trials()[0]:
        put(store, trial)
    return store, made.trials()[0]


def put(store, trial):
    values = trial.model_dump(mode="json")
    if trial.arm == "nan":
        files = record.failed(values, trial.digest, "no number", {"host": "here"}, b"")
    else:
        made = fakes.result(trial.seed)
        made.sparsity_by_layer.extend([0.0, 0.0, 0.0, 0.5, 0.75, 1.0])
        files = record.finished(values, trial.digest, made, b"")
    store.put(trial.digest, files)


def test_a_row_a_trial_in_the_order_of_the_study(study):
    store, trials = study
    rebuild(store.folder)
    with (store.folder / "results.csv").open(newline="") as file:
        rows = list(plain_csv.DictReader(file))
    assert [row["digest"] for row in rows] == [trial.digest for trial in trials]
    dense, sparse, failed = rows[0], rows[1], rows[2]
    assert (dense["arm"], dense["layers"], dense["layer_sparsity"]) == ("dense", "", "")
    assert (sparse["arm"], sparse["layers"], sparse["layer_sparsity"]) == (AWKWARD, "-3:", "0.75")
    assert (sparse["accuracy"], sparse["f1"], sparse["steps"]) == ("0.8", "", "7")
    assert (sparse["seconds"], sparse["seconds_train"]) == ("1.3", "1")
    assert (failed["status"], failed["reason"], failed["accuracy"]) == ("failed", "no number", "")


def test_every_column_is_explained(study):
    found = rebuild(study[0].folder)
    published = (fakes.ROOT / "results" / "trials.csv").read_text().split("\n")[0].split(",")
    metrics = {name for _, name in measures._MEASURES}
    columns = {*found.table().column_names, *published} - {*metrics, "environment", "study"}
    page = (fakes.ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    table = page.partition("The columns of `results.csv`")[2].partition("\n\nThe digest")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(columns)


def test_the_table_is_the_same_every_time(study):
    store, trials = study
    rebuild(store.folder)
    names = ("results.csv", "results.parquet")
    first = [(store.folder / name).read_bytes() for name in names]
    times = [(store.folder / name).stat().st_mtime_ns for name in names]
    rebuild(store.folder)
    assert [(store.folder / name).read_bytes() for name in names] == first
    assert [(store.folder / name).stat().st_mtime_ns for name in names] == times, "not written"
    table = parquet.read_table(store.folder / "results.parquet")
    assert table.drop_columns(["environment"]).num_columns == len(
        first[0].split(b"\n")[0].split(b",")
    )
    store.remove(trials[0].digest)
    assert len(rebuild(store.folder).rows) == 5
    put(store, trials[0])
    (store.folder / "results.parquet").write_bytes(b"damaged")
    rebuild(store.folder)
    assert [(store.folder / name).read_bytes() for name in names] == first


def test_a_changed_digit_is_found_though_size_and_time_are_the_same(study):
    store, trials = study
    rebuild(store.folder)
    path = store.trials / trials[0].digest / "result.json"
    stat, text = path.stat(), path.read_text()
    path.write_text(text.replace("0.8", "0.9", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert list(rebuild(store.folder).damaged) == [trials[0].digest]


def test_the_report_sees_the_study(study):
    store, trials = study
    data = load_study(store.folder)
    assert data.metrics == ("accuracy", "f1")
    assert data.headline == "accuracy"
    assert [arm.address for arm in data.groups] == ["dense", f"{AWKWARD}@-3:", "nan@:"]
    assert len(data.failed) == 2
    assert data.predictions(trials[0].digest)["score"].sum() == 800
    assert data.environments == [{"python": "3", "device": "cpu"}], "of trials that finished"
    assert data.spec["arms"][1]["layers"] == "-3:"


def test_predictions_that_are_damaged_are_not_compared(study):
    store, trials = study
    path = store.trials / trials[0].digest / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StudyError, match=r"predictions\.parquet is damaged: its checksum"):
        load_study(store.folder).predictions(trials[0].digest)


def test_a_study_without_a_finished_trial(tmp_path):
    fakes.begin(tmp_path / "s", ["a"])
    with pytest.raises(StudyError, match=r"no trial of .* has finished; `sparseattn study resume"):
        load_study(tmp_path / "s")


def test_a_trial_in_another_one_s_folder_is_damaged(study):
    store, trials = study
    first, second = (store.trials / trial.digest for trial in trials[:2])
    for path in first.iterdir():
        path.write_bytes((second / path.name).read_bytes())
    with pytest.raises(StudyError, match=r"result\.json is damaged: its checksum does not match"):
        store.read(trials[0].digest)


def test_what_is_not_there_is_said(study, tmp_path):
    store, trials = study
    assert load_study(store.folder).missing == ""
    store.remove(trials[0].digest)
    assert load_study(store.folder).missing == "Of 6 trials 1 has not run."
    (store.trials / trials[1].digest / "result.json").write_text("{")
    data = load_study(store.folder)
    assert data.missing == "Of 6 trials 1 has not run and 1 is damaged."
    assert "is damaged: cut short" in data.damaged[0]
    assert "null" not in spec_text(data), "what is not set is not listed"
    write_report(data, tmp_path / "report")
    for name in ("report.html", "report.md"):
        assert "This study is not complete. Of 6 trials" in (tmp_path / "report" / name).read_text()
