"""What a user sees of a study that runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sparseattn.study.arm_key import ArmKey
from sparseattn.study.trial import DENSE, TrialSpec

__all__ = ["Bars", "Display", "Lines", "display", "label", "say", "spell_time"]


def label(trial: TrialSpec) -> str:
    """What a trial is called on the screen.

    >>> label(TrialSpec.model_construct(arm="near", pattern="self()", layers="-3:", seed=1))
    'near, layers last 3, seed 1'
    """
    arm = ArmKey(trial.arm, "" if trial.pattern == DENSE else trial.layers)
    return f"{arm}, seed {trial.seed}"


def spell_time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> spell_time(3725)
    '1:02:05'
    """
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class Eta:
    """How long is left, from the trials that ran in this session.

    Args:
        total: Trials to run.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.shares: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds left; None while nothing is known."""
        worked = self.done + sum(self.shares.values())
        return self.elapsed * (self.total - worked) / worked if worked > 0.02 else None

    def __str__(self) -> str:
        """Both in words."""
        left = "" if self.left is None else f", about {spell_time(self.left)} left"
        return f"{spell_time(self.elapsed)} elapsed{left}"


#: How much of a trial's time each phase takes, about; for its bar.
_PHASES = {"prepare": (0.0, 0.05), "train": (0.05, 0.9), "evaluate": (0.95, 0.05)}


def share_of_trial(phase: str, share: float) -> float:
    """How much of a trial is done.

    >>> share_of_trial("train", 0.5)
    0.5
    """
    start, width = _PHASES.get(phase, (0.0, 1.0))
    return start + width * min(max(share, 0.0), 1.0)


class Display(Protocol):
    """Shows a run of trials."""

    def __enter__(self) -> Self:
        """Starts."""

    def __exit__(self, *args: Any) -> None:
        """Ends."""

    def start(self, trial: TrialSpec) -> None:
        """A trial was handed to a worker."""

    def advance(self, trial: TrialSpec, phase: str, share: float) -> None:
        """A trial got further."""

    def end(self, trial: TrialSpec, outcome: str | None) -> None:
        """A trial ended, with what to say of it; None if it is somebody else's."""

    def say(self, text: str) -> None:
        """Something that the user should know."""


class Lines:
    """A line a trial, for logs and pipes.

    Args:
        total: Trials to run.
        write: Takes a line.
    """

    def __init__(self, total: int, write: Callable[[str], Any]) -> None:
        self.pace, self.say = Eta(total), write

    def __enter__(self) -> Self:
        """Starts."""
        return self

    def __exit__(self, *args: Any) -> None:
        """Ends."""

    def start(self, trial: TrialSpec) -> None:
        """See `Display.start`."""

    def advance(self, trial: TrialSpec, phase: str, share: float) -> None:
        """See `Display.advance`."""
        self.pace.shares[trial.digest] = share_of_trial(phase, share)

    def end(self, trial: TrialSpec, outcome: str | None) -> None:
        """See `Display.end`."""
        self.pace.shares.pop(trial.digest, None)
        if outcome is not None:
            self.pace.done += 1
            count = f"trial {self.pace.done} of {self.pace.total}"
            self.say(f"{count}: {label(trial)}: {outcome}; {self.pace}")


class Bars:
    """A bar for the study and one for each trial that runs.

    Args:
        total: Trials to run.
        console: The terminal.
    """

    def __init__(self, total: int, console: Console) -> None:
        self.pace = Eta(total)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._all: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Starts."""
        self._bars.start()
        self._all = self._bars.add_task("study", total=self.pace.total, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends."""
        self._bars.stop()

    def start(self, trial: TrialSpec) -> None:
        """See `Display.start`."""
        self._tasks[trial.digest] = self._bars.add_task(label(trial), total=1.0, note="waits")

    def advance(self, trial: TrialSpec, phase: str, share: float) -> None:
        """See `Display.advance`."""
        done = self.pace.shares[trial.digest] = share_of_trial(phase, share)
        self._bars.update(self._tasks[trial.digest], completed=done, note=phase)
        self._refresh()

    def end(self, trial: TrialSpec, outcome: str | None) -> None:
        """See `Display.end`."""
        self.pace.shares.pop(trial.digest, None)
        if trial.digest in self._tasks:
            self._bars.remove_task(self._tasks.pop(trial.digest))
        if outcome is not None:
            self.pace.done += 1
            self.say(f"{label(trial)}: {outcome}")
        self._refresh()

    def say(self, text: str) -> None:
        """See `Display.say`."""
        say(self._bars.console, text)

    def _refresh(self) -> None:
        assert self._all is not None
        done = self.pace.done
        running = f"trial {min(done + 1, self.pace.total)} of {self.pace.total}"
        worked = done + sum(self.pace.shares.values())
        self._bars.update(self._all, completed=worked, description=running, note=str(self.pace))


def display(total: int, console: Console) -> Display:
    """Bars on a terminal, lines elsewhere."""
    return Bars(total, console) if console.is_terminal else Lines(total, partial(say, console))


def say(console: Console, text: str) -> None:
    """Prints a line as it is, without breaking it where it goes to a file."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)
