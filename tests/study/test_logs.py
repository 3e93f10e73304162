"""What loggers write stays with the study."""

import os
from pathlib import Path

import pytest

from sparseattn.errors import StudyError
from sparseattn.study import run
from sparseattn.study.store import Store
from sparseattn.study.trial_runner import run_to_files
from tests.study import fakes
from tests.tasks.material import study_values, task_of, tiny_model

EVENTS = "events.out.of.a.logger"


def run_trial(spec, *, folder=None, progress=None, cache=None):
    """A fake trial of which the logger writes a file where loggers are told to."""
    place = Path(os.environ["TENSORBOARD_LOGGING_DIR"])
    (place / "train").mkdir()
    (place / "train" / EVENTS).write_bytes(b"loss 1.0")
    return fakes.run_trial(spec, folder=folder, progress=progress, cache=cache)


def files_of(tmp_path, spec, logs):
    run = "tests.study.test_logs:run_trial"
    return run_to_files(run, spec, tmp_path / "work", lambda *_: None, logs)


@pytest.fixture
def spec():
    return fakes.make(["a"], training={"report_to": ["tensorboard"]}).trials()[0][0]


def test_logs_come_back_from_where_the_study_is_not(tmp_path, spec):
    files = files_of(tmp_path, spec, None)
    assert files[f"logs/train/{EVENTS}"] == b"loss 1.0"
    store = Store(tmp_path / "s")
    store.prepare()
    store.put(spec.digest, files)
    assert (store.logs(spec.digest) / "train" / EVENTS).read_bytes() == b"loss 1.0"
    assert store.read(spec.digest)["status"] == "done"
    assert not (store.trials / spec.digest / "logs").exists(), "they are no part of the trial"


def test_logs_are_written_beside_the_study_s_trials(tmp_path, spec, monkeypatch):
    logs = tmp_path / "logs" / spec.digest
    files = files_of(tmp_path, spec, logs)
    assert (logs / "train" / EVENTS).is_file()
    assert not any("logs/" in name for name in files)
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    files_of(tmp_path, spec, tmp_path / "others")
    assert (tmp_path / "train" / EVENTS).is_file(), "the user has said where"
    assert not (tmp_path / "others").exists(), "an empty folder is not left behind"


def study_of(folder, *loggers):
    training = {"steps": 3, "batch_size": 4, "report_to": list(loggers)}
    model, task = tiny_model(folder / "model"), task_of(folder / "data")
    return study_values(model, task, training=training)


def test_a_study_keeps_what_tensorboard_shows(tmp_path, monkeypatch, in_process):
    pytest.importorskip("tensorboardX", reason="no TensorBoard writer is installed")
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "cache"))
    assert run(study_of(tmp_path, "tensorboard"), tmp_path / "s").failed == {}
    (digest,) = Store(tmp_path / "s").finished()
    (events,) = (tmp_path / "s" / "logs" / digest).glob("events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()
    assert not any((tmp_path / "s" / "work").iterdir())


def test_a_logger_that_is_not_installed_is_one_line_and_nothing_is_written(tmp_path):
    message = r"^training\.report_to\[0\]: ClearMLCallback requires 'clearml' to be installed"
    with pytest.raises(StudyError, match=message) as caught:
        run(study_of(tmp_path, "clearml"), tmp_path / "s")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()
