"""Trials in several processes that train nothing; the arm's name says what becomes of one."""

import os
import signal
import sys
import time
from pathlib import Path

from sparseattn.study import trial
from sparseattn.study.trial import TrialFailed, TrialResult, TrialSpec
from sparseattn.study.trial_cache import TrialCache
from tests.study import fakes

__all__ = ["EXECUTOR", "TRIAL", "TrialCache", "killed_once", "run_trial"]

TRIAL = "tests.study.groups:run_trial"

#: Two processes a trial, one trial at a time.
EXECUTOR = {"workers": 1, "threads": 1, "processes": 2}


def run_trial(spec: TrialSpec, *, folder=None, progress=None, cache=None) -> TrialResult:
    rank, (what, _, whose) = int(os.environ["RANK"]), spec.arm.partition(" ")
    fakes.note("begin", spec.digest, rank, os.getpid(), os.getppid())
    progress("train", 0.5)
    print("a word on the way", flush=True)
    if what == "stands" and not (folder / "stood").exists():
        (folder / f"stood-{rank}").touch()
        if len(list(folder.glob("stood-*"))) == 2:
            (folder / "stood").touch()
        time.sleep(600)
    if what in ("fails", "dies") and rank == int(whose):
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise TrialFailed(f"process {rank} is out of luck")
    if what in ("fails", "dies"):
        time.sleep(600)  # as if it waited for the other one
    made = fakes.result(spec.seed, spec.arm)
    made.environment.update(rank=rank, threads=os.environ["OMP_NUM_THREADS"])
    return made


def killed_once(spec: TrialSpec, *, folder=None, progress=None, cache=None) -> TrialResult:
    """A real trial, of which the second process is killed at its seventh step, once."""

    def tell(phase: str, share: float) -> None:
        progress(phase, share)
        shot = folder / "shot"
        if os.environ["RANK"] == "1" and round(share * 12) == 7 and not shot.exists():
            shot.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return trial.run_trial(spec, folder=folder, progress=tell, cache=cache)


if __name__ == "__main__":
    fakes.TRIAL = TRIAL
    outcome = fakes.go_on(Path(sys.argv[1]))
    sys.exit(1 if outcome.failed else 0)
