"""One of the processes of a trial, as `accelerate launch` starts it for `group.py`."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from sparseattn.study.executors.channel import Channel, listen
from sparseattn.study.executors.group import FAILED, SPEC, STATUS, leave
from sparseattn.study.store import out_of_space
from sparseattn.study.trial_runner import reason_of

__all__ = ["main"]


def main(run: str, place: str) -> None:
    """Runs the trial; the first process tells how far it is and leaves its result.

    Args:
        run: The function that runs a trial, as `module:function`.
        place: The folder that the processes share with the worker.
    """
    channel = Channel()
    listen(lambda _line: None, status=STATUS)
    rank = int(os.environ["RANK"])

    def progress(phase: str, share: float) -> None:
        if rank == 0:
            channel.progress("", phase, share)

    try:
        result = _run(run, Path(place), progress)
        if rank == 0:
            leave(Path(place), result)
    except Exception as error:
        told = {
            "time": time.time_ns(),
            "rank": rank,
            "reason": reason_of(error),
            "full": out_of_space(error, Path(place)),
            "traceback": "".join(traceback.format_exception(error))[-8000:],
        }
        path = Path(place) / FAILED.format(rank=rank)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(told), encoding="utf-8")
        draft.rename(path)
        # The others wait for this one, and would for long if it said goodbye to them.
        os._exit(STATUS)


def _run(run: str, place: Path, progress: Any) -> Any:
    from sparseattn.study.trial import TrialSpec

    module_name, _, name = run.partition(":")
    module = import_module(module_name)
    make = getattr(module, "TrialCache", None)
    spec = TrialSpec.model_validate_json((place / SPEC).read_text(encoding="utf-8"))
    cache = make() if make else None
    return getattr(module, name)(spec, folder=place.parent, progress=progress, cache=cache)


if __name__ == "__main__":
    main(*sys.argv[1:])
