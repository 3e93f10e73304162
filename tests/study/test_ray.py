"""The Ray executor, on a cluster of two nodes on this machine."""

import threading
import time
import warnings

import pytest

from sparseattn.errors import StudyError
from sparseattn.study.executors import make
from sparseattn.study.executors.base import Job
from sparseattn.study.file.spec import ExecutorSpec
from sparseattn.study.folder.claims import Claims
from sparseattn.study.folder.store import Store
from tests.study import fakes

pytest.importorskip("ray")
# Ray starts processes that it does not wait for, and uses what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without cores: trials run on nodes that a test adds."""
    patch = pytest.MonkeyPatch()
    patch.setenv(fakes.LOG, str(tmp_path_factory.mktemp("ray") / "log.txt"))
    patch.setenv(fakes.SECONDS, "1.5")
    patch.setenv("PYTHONPATH", str(fakes.ROOT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()
    patch.undo()


@pytest.fixture
def log(cluster):
    """Where trials on the nodes write down what they do."""
    import os
    from pathlib import Path

    path = Path(os.environ[fakes.LOG])
    path.unlink(missing_ok=True)
    return path


def on(cluster):
    return {"kind": "ray", "address": cluster.address}


@pytest.mark.slow
def test_a_trial_moves_when_its_node_is_lost_and_finishes_once(cluster, tmp_path, log):
    doomed = cluster.add_node(num_cpus=1)
    trials = fakes.begin(tmp_path / "s", ["a", "b", "nan"], 2)

    def lose_a_node() -> None:
        while len(fakes.noted(log, "begin")) < 2:
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)

    accident = threading.Thread(target=lose_a_node)
    accident.start()
    outcome = fakes.go_on(tmp_path / "s", executor=on(cluster))
    accident.join()
    assert sorted(outcome.failed) == sorted(t.digest for t in trials if t.arm == "nan")
    assert set(outcome.failed.values()) == {"the loss became nan by step 3"}
    store = Store(tmp_path / "s")
    assert store.finished() == {trial.digest for trial in trials}
    assert all(store.read(trial.digest)["status"] == "done" for trial in trials[:4])
    begun = fakes.noted(log, "begin")
    moved = [digest for digest in begun if begun.count(digest) == 2]
    assert len(set(moved)) == 1, "no trial was on the node that was lost"
    assert len(begun) == len(trials) + 1
    assert fakes.noted(log, "end").count(moved[0]) == 1


@pytest.mark.slow
def test_progress_claims_and_what_is_there_already(cluster, tmp_path, log):
    trials = fakes.begin(tmp_path / "s", ["a", "b"])
    store, claims = Store(tmp_path / "s"), Claims(tmp_path / "s")
    executor = make(ExecutorSpec(**on(cluster)), store, claims, fakes.TRIAL)
    jobs = [Job(trial.digest, trial.model_dump(mode="json")) for trial in trials]
    executor.submit(jobs[0])
    assert executor.free == 1, "one core, and one trial in waiting"
    events = []
    while not any(event.kind == "stored" for event in events):
        events += executor.poll(0.2)
    told = [event for event in events if event.kind == "progress"]
    assert told
    assert {event.phase for event in told} <= {"prepare", "train", "evaluate"}
    executor.submit(jobs[0])
    assert [event.kind for event in executor.poll(0.2)] == ["found"]
    executor.submit(jobs[1])
    executor.close()
    claims.close()
    assert store.finished() == {trials[0].digest}


def test_a_cluster_that_is_not_there(tmp_path):
    fakes.begin(tmp_path / "s", ["a"])
    elsewhere = {"kind": "ray", "address": "127.0.0.1:1"}
    with pytest.raises(StudyError, match=r"no Ray cluster at '127\.0\.0\.1:1' .*ray start"):
        fakes.go_on(tmp_path / "s", executor=elsewhere)
