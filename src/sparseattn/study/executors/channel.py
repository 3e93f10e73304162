"""What a process says to the one that started it, and how it notices that that one is gone."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["Channel", "listen"]

#: Seconds between two progress messages.
_PACE = 0.2


class Channel:
    """Messages to the process that started this one: a JSON object a line."""

    def __init__(self) -> None:
        # What a trial prints must not end up among the messages.
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = ("", 0.0)

    def send(self, kind: str, digest: str = "", **values: Any) -> None:
        """Sends a message.

        Args:
            kind: See `sparseattn.study.executors.base.Event`.
            digest: The trial that it is about.
            values: What else it says.
        """
        try:
            self._out.write(json.dumps({"kind": kind, "digest": digest, **values}) + "\n")
            self._out.flush()
        except BrokenPipeError:
            os._exit(0)

    def progress(self, digest: str, phase: str, share: float) -> None:
        """Tells how far a trial is, unless it was told a moment ago."""
        before, at = self._last
        now = time.monotonic()
        if phase != before or now - at > _PACE:
            self._last = (phase, now)
            self.send("progress", digest, phase=phase, share=round(float(share), 4))


def listen(heard: Callable[[str], None], status: int = 0) -> None:
    """Reads the lines of the input in a thread, and ends the process where the input ends.

    The other end closes when the process that holds it ends, however it ends.

    Args:
        heard: Takes a line.
        status: What the process ends with.
    """

    def read() -> None:
        rest = b""
        # Not through sys.stdin, whose lock this thread would hold when the interpreter ends.
        while data := os.read(0, 1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                heard(line.decode())
        os._exit(status)

    threading.Thread(target=read, daemon=True).start()
