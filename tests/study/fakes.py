"""Studies of trials that take milliseconds; the arm's name says what becomes of a trial."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
from tqdm import tqdm

from sparseattn.errors import TrialFailed
from sparseattn.study import session
from sparseattn.study.executors import local
from sparseattn.study.grid import Arm
from sparseattn.study.runner import Event
from sparseattn.study.session import Options, RunOutcome, resume
from sparseattn.study.spec import spec_of
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study
from sparseattn.study.trial import TrialResult, TrialSpec

ROOT = Path(__file__).parents[2]

TRIAL = "tests.study.fakes:run_trial"

#: Where trials write down that they began and ended, and how long they take.
LOG, SECONDS = "FAKE_LOG", "FAKE_SECONDS"

#: A file that trials wait for before they train.
GATE = "FAKE_GATE"


def note(word: str, digest: str, *more: object) -> None:
    """Appends a line in one write, so that lines of several processes do not mix."""
    if path := os.environ.get(LOG):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{' '.join(map(str, (word, digest, *more)))}\n".encode())
        os.close(handle)


def noted(path: Path, word: str) -> list[str]:
    return [words[0] for words in told(path, word)]


def told(path: Path, word: str) -> list[list[str]]:
    """What was noted under a word: the digest and what more."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1:] for line in lines if line.split()[0] == word]


def start(folder: Path, module: str = "fakes", **options) -> subprocess.Popen:
    """A process that runs a study: of fake trials, or of `observed` ones."""
    command = [sys.executable, "-m", f"tests.study.{module}", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, **{"stderr": subprocess.DEVNULL, **options})


def wait_until(happened: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Waits for an event; the seconds are for one that never comes, not for a slow machine."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"in {seconds:.0f} s this did not happen: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def run_trial(spec: TrialSpec, *, folder=None, progress=None, cache=None) -> TrialResult:
    note("begin", spec.digest, os.getpid(), os.getppid(), *sorted(p.name for p in folder.iterdir()))
    note("folder", spec.digest, folder)
    progress("prepare", 0.0)
    if gate := os.environ.get(GATE):
        (folder / "before").touch()
        while not Path(gate).exists():
            time.sleep(0.02)
    _misfortune(spec.arm, folder)
    seconds = float(os.environ.get(SECONDS, "0"))
    for step in tqdm(range(5), disable=True):  # as in a real one, where it makes a lock
        time.sleep(seconds / 5)
        progress("train", (step + 1) / 5)
    progress("evaluate", 0.5)
    note("end", spec.digest)
    made = result(spec.seed, spec.arm)
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        made.environment[name] = os.environ.get(name)
    return made


def _misfortune(arm: str, folder: Path) -> None:
    kind, _, detail = arm.partition(" ")
    errors = {"nan": TrialFailed("the loss became nan by step 3"), "memory": MemoryError()}
    if error := (errors | {"bug": KeyError("batch")}).get(kind):
        raise error
    if kind == "exits":
        print("Fatal Python error: pretend", file=sys.stderr, flush=True)
        os._exit(7)
    if kind == "killed" and not (detail == "once" and (folder / "again").exists()):
        (folder / "again").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fills":
        (folder / "checkpoint").write_bytes(b"0" * (1 << 22))
    if kind == "prints":
        print('{"kind": "stored", "digest": "not a message"}', flush=True)


def result(seed: int, arm: str = "") -> TrialResult:
    right = 800 + 10 * seed + len(arm)
    return TrialResult(
        metrics={"accuracy": right / 1000, "f1": float("nan")},
        headline="accuracy",
        sparsity=0.5,
        block_density=1.5,
        mean_degree=3.0,
        allowed_pairs=10,
        valid_pairs=20,
        sparsity_by_layer=[],
        counts={"train_examples": 4, "evaluation_examples": 1000, "steps": 7.0},
        seconds={"prepare": 0.1, "train": 1.0, "evaluate": 0.2, "total": 1.3},
        history=[{"step": 1, "loss": float("inf")}],
        predictions=pyarrow.table(
            {
                "example": [str(number) for number in range(1000)],
                "label": [0] * 1000,
                "prediction": [0] * right + [1] * (1000 - right),
                "score": [1.0] * right + [0.0] * (1000 - right),
            }
        ),
        environment={"python": "3", "device": "cpu"},
    )


def make(arms: list[str], seeds: int = 1, **changes) -> Study:
    """A study of a dense arm for each name."""
    spec = spec_of(
        {
            "name": "fake",
            "model": "package:none",
            "task": {"use": "bbc"},
            "seeds": seeds,
            "arms": [{"name": name, "pattern": "dense"} for name in arms],
            "executor": {"workers": 1},
            **changes,
        }
    )
    # Different layers, so that the trials differ: the name of an arm is no part of its digest.
    made = tuple(Arm(n, "neighbor(radius=1)", str(i), {}, {}) for i, n in enumerate(arms))
    return Study(spec, made, "fingerprint", {"torch": "1.0"})


def begin(folder: Path, arms: list[str], seeds: int = 1, **changes) -> list[TrialSpec]:
    """Begins a study in a folder."""
    study, store = make(arms, seeds, **changes), Store(folder)
    store.prepare()
    store.write(STUDY, study.to_json())
    return study.trials()[0]


def go_on(folder: Path, **options) -> RunOutcome:
    """`resume`, without a look at data and packages, which a fake study does not have."""
    before, session._check_fresh = session._check_fresh, lambda *_: None
    try:
        return resume(folder, Options(trial=TRIAL, **options))
    finally:
        session._check_fresh = before


class InProcessExecutor:
    """In the place of `LocalExecutor`: what a worker does, done by this process as it is asked."""

    def __init__(self, store: Store, workers: int | None, threads: int | None, run: str) -> None:
        self.folder, self.run = str(store.folder), run
        self._ended: list[Event] = []

    @property
    def free(self) -> int:
        return 1 - len(self._ended)

    def submit(self, trial: TrialSpec) -> None:
        ended = local._work(self.folder, self.run, trial.model_dump_json())
        self._ended.append(Event(ended, trial.digest))

    def poll(self, timeout: float) -> list[Event]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """There is nothing to stop."""


if __name__ == "__main__":
    outcome = go_on(Path(sys.argv[1]))
    sys.exit(1 if outcome.failed else 0)
