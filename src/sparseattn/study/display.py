"""What a user sees of a study that runs: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sparseattn.study.arms import DENSE, ArmKey
from sparseattn.study.trial import TrialSpec
from sparseattn.words import duration

#: Where each phase begins in a trial, and how much of its time it takes, about; for its bar.
_PHASES = {"prepare": (0.0, 0.05), "train": (0.05, 0.9), "evaluate": (0.95, 0.05)}

#: The bar of the study moves in steps of this share: rich keeps 1,000 for the time that is left.
_STEP = 1 / 500


def label(trial: TrialSpec) -> str:
    """What a trial is called on the screen.

    >>> label(TrialSpec.model_construct(arm="near", pattern="self()", layers="-3:", seed=1))
    'near, layers last 3, seed 1'
    """
    arm = ArmKey(trial.arm, "" if trial.pattern == DENSE else trial.layers)
    return f"{arm}, seed {trial.seed}"


class Display:
    """A bar for the study and one for each trial that runs; off a terminal, a line a trial."""

    def __init__(self, total: int, console: Console) -> None:
        self.done, self.console = 0, console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[phase]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=float("inf"),
        )
        self._study = self._bars.add_task(f"trial 1 of {total}", total=total, phase="")
        self._trials: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, trial: TrialSpec) -> None:
        """A trial was handed to a worker."""
        self._trials[trial.digest] = self._bars.add_task(label(trial), total=1.0, phase="waits")

    def advance(self, trial: TrialSpec, phase: str, share: float) -> None:
        """A trial got further."""
        start, width = _PHASES.get(phase, (0.0, 1.0))
        done = start + width * min(max(share, 0.0), 1.0)
        self._bars.update(self._trials[trial.digest], completed=done, phase=phase)
        self._refresh(least=_STEP)

    def end(self, trial: TrialSpec, outcome: str | None) -> None:
        """A trial ended, with what to say of it; None if it is somebody else's, or lost."""
        if trial.digest in self._trials:
            self._bars.remove_task(self._trials.pop(trial.digest))
        self.done += outcome is not None
        self._refresh()
        if outcome is None:
            return
        text = f"{label(trial)}: {outcome}"
        if self._bars.disable:
            study = self._bars.tasks[0]
            left = study.time_remaining
            about = "" if left is None else f", about {duration(left)} left"
            text = f"trial {self.done} of {study.total:.0f}: {text}; "
            text += f"{duration(study.elapsed or 0.0)} elapsed{about}"
        say(self.console, text)

    def _refresh(self, least: float = 0.0) -> None:
        study, *trials = self._bars.tasks
        total = study.total or 0.0
        done = self.done + sum(trial.completed for trial in trials)
        if abs(done - study.completed) >= least * total:
            name = f"trial {min(self.done + 1, round(total))} of {total:.0f}"
            self._bars.update(self._study, completed=done, description=name)


def say(console: Console, text: str) -> None:
    """Prints a line as it is, without breaking it where it goes to a file."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)
