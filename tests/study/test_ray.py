"""The Ray executor, on a cluster of two nodes on this machine.

What a test waits for is an event, such as a trial that began on a certain node: no trial takes a
certain time, and none ends before its test lets it.
"""

import json
import multiprocessing
import os
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import parquet

from sparseattn.errors import StudyError
from sparseattn.study.executors import ray as executor_of_ray
from sparseattn.study.executors.ray import work_folder
from sparseattn.study.store import Store
from tests.study import fakes

pytest.importorskip("ray")
# Ray starts processes that it does not wait for, and uses what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore")

#: A node that is slow to answer is not lost, and a worker that is slow to start is waited for. One
#: that refuses to talk is given up soon: until then Ray may choose it for the trial that it lost.
PATIENT = {
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_memory_monitor_refresh_ms": "0",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without cores: trials run on nodes that a test adds."""
    patch, place = pytest.MonkeyPatch(), tmp_path_factory.mktemp("ray")
    patch.setenv(fakes.LOG, str(place / "log.txt"))
    patch.setenv(fakes.GATE, str(place / "gate"))
    patch.setenv("PYTHONPATH", str(fakes.ROOT), prepend=os.pathsep)
    for name, value in PATIENT.items():
        patch.setenv(name, value)
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
    path = Path(os.environ[fakes.LOG])
    path.unlink(missing_ok=True)
    return path


@pytest.fixture
def gate(cluster):
    """The file that trials wait for before they train."""
    path = Path(os.environ[fakes.GATE])
    path.unlink(missing_ok=True)
    yield path
    path.touch()


def on(cluster):
    return {"kind": "ray", "address": cluster.address}


def raylet(node) -> int:
    """The process that starts a node's workers."""
    return node.all_processes["raylet"][0].process.pid


@pytest.mark.slow
def test_a_trial_moves_when_its_node_is_lost_and_finishes_once(cluster, tmp_path, log, gate):
    doomed = cluster.add_node(num_cpus=1)
    trials = fakes.begin(tmp_path / "s", ["a", "b", "nan"], 2)
    parent, lost = str(raylet(doomed)), []

    def there() -> list[list[str]]:
        return [words for words in fakes.told(log, "begin") if words[2] == parent]

    def lose_a_node() -> None:
        fakes.wait_until(there, "a trial begins on the second node")
        lost.extend(there())
        left = tmp_path / "s" / "work" / lost[0][0] / "before"
        fakes.wait_until(left.exists, "the trial leaves something behind")
        cluster.remove_node(doomed, allow_graceful=False)
        fakes.wait_until(lambda: not fakes.alive(int(lost[0][1])), "its worker ends")
        gate.touch()

    accident = threading.Thread(target=lose_a_node)
    accident.start()
    outcome = fakes.go_on(tmp_path / "s", executor=on(cluster))
    accident.join()
    assert sorted(outcome.failed) == sorted(t.digest for t in trials if t.arm == "nan")
    assert set(outcome.failed.values()) == {"the loss became nan by step 3"}
    store = Store(tmp_path / "s")
    assert store.finished() == {trial.digest for trial in trials}
    assert all(store.read(t.digest)["status"] == "done" for t in trials if t.arm != "nan")
    ((moved, *_),) = lost
    begun = fakes.noted(log, "begin")
    assert sorted(begun) == sorted([*(trial.digest for trial in trials), moved])
    assert fakes.noted(log, "end").count(moved) == 1
    # The node that took it over sees the study's folder, and in it what the first attempt left.
    again = [words[3:] for words in fakes.told(log, "begin") if words[0] == moved][1]
    assert "before" in again
    assert not any((tmp_path / "s" / "work").iterdir())
    assert not any((tmp_path / "s" / "locks").glob("ray.*"))


@pytest.mark.slow
def test_results_come_back_without_a_shared_disk(cluster, tmp_path, log, gate, monkeypatch):
    """The node looks for the study's folder where it is not; it alone has room for a trial."""
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    trials = fakes.begin(tmp_path / "s", ["a", "nan"])

    @contextmanager
    def elsewhere(store):
        yield tmp_path / "another disk" / "locks" / "ray.0"

    monkeypatch.setattr(executor_of_ray, "_marked", elsewhere)
    gate.touch()
    outcome = fakes.go_on(tmp_path / "s", executor={**on(cluster), "cpus": 2, "gpus": 1})
    cluster.remove_node(node)
    done, failed = (trial.digest for trial in trials)
    assert outcome.failed == {failed: "the loss became nan by step 3"}
    store = Store(tmp_path / "s")
    assert store.read(done)["metrics"]["accuracy"] == fakes.result(0, "a").metrics["accuracy"]
    assert parquet.read_table(store.trials / done / "predictions.parquet").num_rows == 2
    made = json.loads((store.trials / done / "environment.json").read_text())
    assert (made["OMP_NUM_THREADS"], made["CUDA_VISIBLE_DEVICES"]) == ("2", "0")
    # The trials worked in folders of their own, which are gone.
    worked = {words[0]: Path(words[1]) for words in fakes.told(log, "folder")}
    assert worked.keys() == {done, failed}
    assert not any(tmp_path in path.parents or path.exists() for path in worked.values())
    assert not (tmp_path / "another disk").exists()


def test_a_cluster_that_is_not_there(tmp_path):
    fakes.begin(tmp_path / "s", ["a"])
    elsewhere = {"kind": "ray", "address": "127.0.0.1:1"}
    with pytest.raises(StudyError, match=r"no Ray cluster at '127\.0\.0\.1:1' .*ray start"):
        fakes.go_on(tmp_path / "s", executor=elsewhere)


#: What each attempt at a trial works in.
DIGEST = "ab" * 8


def mark_in(folder: Path, there: bool = True) -> Path:
    """The mark that a runner leaves in a study's folder."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    mark = folder / "locks" / "ray.0"
    if there:
        mark.touch()
    return mark


def test_a_node_that_sees_the_folder_works_in_it(tmp_path):
    with work_folder(mark_in(tmp_path), DIGEST) as work:
        assert work == tmp_path / "work" / DIGEST
        (work / "checkpoint").touch()
    with work_folder(mark_in(tmp_path), DIGEST) as work:
        assert (work / "checkpoint").exists()


@pytest.mark.parametrize("folder", ["none", "another disk, or a copy"])
def test_a_node_that_does_not_see_the_folder_works_elsewhere(folder, tmp_path):
    mark = tmp_path / "none" / "locks" / "ray.0"
    if folder != "none":
        mark = mark_in(tmp_path / folder, there=False)
    with work_folder(mark, DIGEST) as work:
        assert tmp_path not in work.parents
        assert work.is_dir()
    assert not work.exists()
    assert not list(tmp_path.rglob("work"))


def test_two_attempts_at_a_trial_do_not_share_a_folder(tmp_path):
    """A node that was cut off may still be at it; locks are a process's, hence another one."""
    context = multiprocessing.get_context("spawn")
    there, over = context.Event(), context.Event()
    other = context.Process(target=hold, args=(mark_in(tmp_path), there, over), daemon=True)
    other.start()
    assert there.wait(120)
    with work_folder(mark_in(tmp_path), DIGEST, patience=0.0) as work:
        assert tmp_path not in work.parents
    over.set()
    with work_folder(mark_in(tmp_path), DIGEST, patience=120.0) as work:
        assert tmp_path in work.parents
    other.join()


def hold(mark: Path, there, over) -> None:
    with work_folder(mark, DIGEST):
        there.set()
        over.wait()
