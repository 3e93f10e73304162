"""Real trials that write down their steps, and stand still at some until they are killed."""

import os
import sys
import time
from pathlib import Path

from sparseattn.study import trial
from sparseattn.study.run_trial import run_trial as real_trial
from sparseattn.study.session import Options, resume
from sparseattn.study.trial_cache import TrialCache
from tests.study import fakes

__all__ = ["HOLDS", "STEPS", "TRIAL", "TrialCache", "hold", "run_trial"]

TRIAL = "tests.study.observed:run_trial"

#: Optimiser steps of a trial.
STEPS = 20

#: A folder with a file for each step that a trial is to stand still at, once.
HOLDS = "OBSERVED_HOLDS"


def hold(folder: Path, digest: str, step: int) -> None:
    """Asks for it."""
    (folder / f"{digest}.{step}").touch()


def run_trial(spec: trial.TrialSpec, *, folder=None, progress=None, cache=None):
    def tell(phase: str, share: float) -> None:
        progress(phase, share)
        if phase == "train" and share > 0:
            step = round(share * STEPS)
            fakes.note("step", spec.digest, step)
            _stand_still(spec.digest, step)

    return real_trial(spec, folder=folder, progress=tell, cache=cache)


def _stand_still(digest: str, step: int) -> None:
    asked = Path(os.environ[HOLDS]) / f"{digest}.{step}"
    if asked.exists():
        asked.unlink()
        fakes.note("held", digest, os.getpid())
        while True:
            time.sleep(1)


if __name__ == "__main__":
    outcome = resume(sys.argv[1], Options(trial=TRIAL))
    sys.exit(1 if outcome.failed else 0)
