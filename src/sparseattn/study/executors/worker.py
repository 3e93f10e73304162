"""A local worker process: reads trials from its input, a JSON object a line, and stores them.

The runner's end of the input closes when the runner ends, however it ends; the worker then ends at
once. It holds the claim on its trial itself, so that the claim lives exactly as long as the work.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from sparseattn.errors import StudyError
from sparseattn.study.folder.claims import Claims
from sparseattn.study.folder.store import Store, writing
from sparseattn.study.runs.perform import Performer

__all__ = ["main"]

#: Seconds between two progress messages.
_PACE = 0.2


class _Channel:
    """Messages to the runner."""

    def __init__(self) -> None:
        # What a trial prints must not end up among the messages.
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = ("", 0.0)

    def send(self, kind: str, digest: str = "", **values: Any) -> None:
        try:
            self._out.write(json.dumps({"kind": kind, "digest": digest, **values}) + "\n")
            self._out.flush()
        except BrokenPipeError:
            os._exit(0)

    def progress(self, digest: str, phase: str, share: float) -> None:
        before, at = self._last
        now = time.monotonic()
        if phase != before or now - at > _PACE:
            self._last = (phase, now)
            self.send("progress", digest, phase=phase, share=round(float(share), 4))


def _jobs() -> Iterator[dict[str, Any]]:
    """The runner's jobs. Ends the process when the runner is gone, in the middle of a trial too."""
    queue: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            queue.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(queue.get())


def main(folder: str, run: str) -> None:
    """Works until the runner is gone.

    Args:
        folder: The study's folder.
        run: The function that runs a trial, as `module:function`.
    """
    channel = _Channel()
    try:
        store, claims, performer = Store(folder), Claims(Path(folder)), Performer(run)
        for job in _jobs():
            channel.send(_work(job, store, claims, performer, channel), job["digest"])
    except StudyError as error:
        channel.send("fatal", reason=str(error))


def _work(
    job: dict[str, Any], store: Store, claims: Claims, performer: Performer, channel: _Channel
) -> str:
    digest = job["digest"]
    if not claims.take(digest):
        return "busy"
    try:
        if store.has(digest):
            return "found"

        def progress(phase: str, share: float) -> None:
            channel.progress(digest, phase, share)

        with writing(store.folder):
            files = performer.perform(job["spec"], digest, store.work(digest), progress)
        store.put(digest, files)
        return "stored"
    finally:
        claims.release(digest)


if __name__ == "__main__":
    main(*sys.argv[1:])
