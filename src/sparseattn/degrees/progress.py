"""What a user sees while degrees are being learned: a bar a phase."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

__all__ = ["Shown"]


class Shown(TrainerCallback):
    """Draws a bar for each phase; where there is no terminal, a line when one begins.

    A phase is called what its folder is, such as `soft-0.8`.

    Args:
        console: Where it goes; the error stream by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
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

    def __enter__(self) -> Self:
        """Starts drawing."""
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the bars as they are."""
        self.bars.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A phase begins, or goes on."""
        name = Path(args.output_dir).name
        self._bar = self.bars.add_task(name, total=state.max_steps, completed=state.global_step)
        if not self.console.is_terminal:
            begun = f" from step {state.global_step}" if state.global_step else ""
            self.console.print(f"{name}: {state.max_steps} steps{begun}", highlight=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A step is done."""
        self.bars.update(self._bar, completed=state.global_step)
