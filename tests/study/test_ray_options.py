"""What the Ray executor asks Ray for; no Ray is needed."""

import io
from contextlib import closing, contextmanager
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from sparseattn.study.display import Display
from sparseattn.study.executors import ray as executor_of_ray
from sparseattn.study.executors.ray import RayExecutor, run_on_node
from sparseattn.study.locks import TrialLocks
from sparseattn.study.runner import Runner
from sparseattn.study.spec import ExecutorSpec
from sparseattn.study.store import Store
from sparseattn.study.trial import TrialSpec
from tests.study import fakes


@pytest.fixture
def ray(monkeypatch):
    """In the place of the module; a cluster of 8 cores and 3 GPUs."""
    fake = MagicMock()
    fake.cluster_resources.return_value = {"CPU": 8.0, "GPU": 3.0}
    fake.exceptions.RayError = RuntimeError

    @contextmanager
    def joined(spec):
        yield fake

    monkeypatch.setattr(executor_of_ray, "joined", joined)
    return fake


@pytest.mark.parametrize(
    ("asked", "threads", "slots"),
    [({"cpus": 2, "gpus": 1, "retries": 5}, "2", 3), ({"cpus": 0.5, "gpus": 0.25}, "1", 12)],
)
def test_cores_gpus_and_retries_reach_ray(ray, tmp_path, asked, threads, slots):
    (trial,) = fakes.begin(tmp_path, ["a"])
    spec = ExecutorSpec(kind="ray", **asked)
    locks = TrialLocks(tmp_path)
    with closing(RayExecutor(Store(tmp_path), locks, spec, run=fakes.TRIAL)) as executor:
        assert executor.free == slots + 1, "one waits"
        executor.submit(trial)
        assert executor.free == slots
    locks.close()
    ray.remote.assert_any_call(run_on_node)
    task = ray.remote.return_value
    task.options.assert_called_once_with(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        max_retries=spec.retries,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
    )
    (values, run, _, mark), _ = task.options.return_value.remote.call_args
    assert TrialSpec.model_validate_json(values) == trial
    assert (run, mark.parent) == (fakes.TRIAL, tmp_path / "locks")


def test_a_node_that_sees_the_folder_stores_the_trial_itself(tmp_path):
    """With the head the runner may be lost, and what Ray was to pass on."""
    (trial,) = fakes.begin(tmp_path, ["a"])
    (mark := tmp_path / "locks" / "ray.0").touch()
    files = run_on_node(trial.model_dump_json(), fakes.TRIAL, MagicMock(), mark)
    store = Store(tmp_path)
    assert store.finished() == {trial.digest}
    assert not store.work(trial.digest).exists()
    store.put(trial.digest, files)  # the runner's turn


def test_a_cluster_without_nodes_is_told_once(ray, tmp_path, capsys):
    """By the runner, on the study's display."""
    locks, told, counts = TrialLocks(tmp_path), [], (8.0, 0.0, 0.0, 8.0, 0.0)
    with closing(RayExecutor(Store(tmp_path), locks, ExecutorSpec(kind="ray"))) as executor:
        console = Console(file=(screen := io.StringIO()))
        runner = Runner(Store(tmp_path), executor, Display(1, console), locks)
        for cores in counts:
            ray.cluster_resources.return_value = {"CPU": cores}
            assert executor.free == cores + 1
            told.append([runner._handle(event) for event in executor.poll(0.0)])
    locks.close()
    assert [len(events) for events in told] == [0, 1, 0, 0, 1]
    line = "no node of the cluster has room for a trial; waiting for one\n"
    assert screen.getvalue() == 2 * line
    assert capsys.readouterr().err == ""
