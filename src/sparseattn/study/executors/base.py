"""What a runner needs of an executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from sparseattn.study.trial import TrialSpec

__all__ = ["Event", "Executor"]


@dataclass(frozen=True)
class Event:
    """What happened to a trial.

    Attributes:
        kind: `progress`; `stored`: it is in the folder now, done or failed; `busy`: another process
            has locked it; `lost`: what ran it died.
        digest: Which trial.
        phase: What it is doing.
        share: How much of that is done, in [0, 1].
        reason: Why it was lost.
    """

    kind: Literal["progress", "stored", "busy", "lost"]
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

    def submit(self, trial: TrialSpec) -> None:
        """Starts a trial."""

    def poll(self, timeout: float) -> list[Event]:
        """What happened; waits at most so many seconds for something to happen.

        Raises:
            StudyError: No trial can go on, such as on a full disk.
        """

    def close(self) -> None:
        """Stops everything, trials in flight too."""
