"""A local worker process: reads trials from its input, a JSON object a line, and stores them.

The runner's end of the input closes when the runner ends, however it ends; the worker then ends at
once. It locks its trial itself, so that the lock lives exactly as long as the work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sparseattn.errors import StudyError
from sparseattn.study.executors.channel import Channel, listen
from sparseattn.study.executors.group import Group
from sparseattn.study.locks import TrialLocks
from sparseattn.study.store import Store, writing
from sparseattn.study.trial_runner import TrialRunner, WorkerDied

__all__ = ["main"]


def _jobs() -> Iterator[dict[str, Any]]:
    """The runner's jobs. Ends the process when the runner is gone, in the middle of a trial too."""
    queue: SimpleQueue[str] = SimpleQueue()
    listen(queue.put)
    while True:
        yield json.loads(queue.get())


def main(folder: str, run: str, processes: str = "1") -> None:
    """Works until the runner is gone.

    Args:
        folder: The study's folder.
        run: The function that runs a trial, as `module:function`.
        processes: How many processes train a trial: this one, or several that it starts.
    """
    channel = Channel()
    try:
        store, locks, performer = Store(folder), TrialLocks(Path(folder)), TrialRunner(run)
        if int(processes) > 1:
            performer.use(Group(run, int(processes)))
        for job in _jobs():
            try:
                channel.send(_work(job, store, locks, performer, channel), job["digest"])
            except WorkerDied as error:
                channel.send("lost", job["digest"], reason=str(error))
    except StudyError as error:
        channel.send("fatal", reason=str(error))


def _work(
    job: dict[str, Any], store: Store, locks: TrialLocks, performer: TrialRunner, channel: Channel
) -> str:
    digest = job["digest"]
    if not locks.take(digest):
        return "busy"
    try:
        if store.has(digest):
            return "found"

        def progress(phase: str, share: float) -> None:
            channel.progress(digest, phase, share)

        with writing(store.folder):
            files = performer.perform(
                job["spec"], digest, store.work(digest), progress, store.logs(digest)
            )
        store.put(digest, files)
        return "stored"
    finally:
        locks.release(digest)


if __name__ == "__main__":
    main(*sys.argv[1:])
