"""What a runner asks of an executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["Event", "Executor", "Job"]


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Attributes:
        digest: Its name.
        spec: Its spec as plain values.
    """

    digest: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """What an executor has to say about a trial.

    Attributes:
        kind: `progress`; `stored`: it is in the folder now, done or failed; `found`: it was there
            already; `busy`: another process has locked it; `lost`: what ran it died; `fatal`: no
            trial can go on.
        digest: Which trial; empty for some fatal events.
        phase: What it is doing.
        share: How much of that is done, in [0, 1].
        reason: Why it was lost, or why no trial can go on.
    """

    kind: Literal["progress", "stored", "found", "busy", "lost", "fatal"]
    digest: str
    phase: str = ""
    share: float = 0.0
    reason: str = ""


class Executor(Protocol):
    """Runs trials and stores them in a study's folder.

    It locks a trial before it runs it and looks whether it is there, so that a runner may submit
    what another runner is about to do.
    """

    @property
    def free(self) -> int:
        """How many more trials it can take now."""

    def submit(self, job: Job) -> None:
        """Starts a trial."""

    def poll(self, timeout: float) -> list[Event]:
        """What happened; waits at most so many seconds for something to happen."""

    def close(self) -> None:
        """Stops everything, trials in flight too."""
