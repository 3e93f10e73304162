"""What a user sees while degrees are being learned: a bar a phase."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from sparseattn.words import counted


class PhaseProgress(TrainerCallback):
    """A bar for each phase, called what its folder is: `search-0.8`.

    Where there is no terminal, a line when a phase begins.

    Attributes:
        bars: To be started and stopped by the caller, as a context.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A phase begins, or goes on."""
        name = Path(args.output_dir).name
        self._bar = self.bars.add_task(name, total=state.max_steps, completed=state.global_step)
        if not self.console.is_terminal:
            begun = f" from step {state.global_step}" if state.global_step else ""
            self.say(f"{name}: {counted(state.max_steps, 'step')}{begun}")

    def say(self, text: str) -> None:
        """Prints a line as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A step is done."""
        self.bars.update(self._bar, completed=state.global_step)
