"""The order in which trials are run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from sparseattn.study.trial import TrialSpec

__all__ = ["TrialQueue"]


class TrialQueue:
    """Trials that are not run yet, in the order of the study but for the first that parses.

    A parse of the data can take longer than a trial, and is kept for all trials and processes. So
    one trial that needs it goes first, and no second one before the first has got to its training:
    two would do the same work at the same time, while there is other work to do.

    Args:
        trials: The trials.
    """

    def __init__(self, trials: Iterable[TrialSpec]) -> None:
        self._trials = deque(trials)
        self._parsed = False
        first = next((trial for trial in self._trials if _parses(trial)), None)
        if first is not None:
            self._trials.remove(first)
            self._trials.appendleft(first)

    def __bool__(self) -> bool:
        """Whether any is left."""
        return bool(self._trials)

    def take(self, running: Iterable[TrialSpec]) -> TrialSpec | None:
        """Takes the next trial out; None where it is better to wait.

        Args:
            running: The trials that run now.
        """
        hold = not self._parsed and any(_parses(trial) for trial in running)
        for trial in self._trials:
            if not (hold and _parses(trial)):
                self._trials.remove(trial)
                return trial
        return None

    def put(self, trial: TrialSpec) -> None:
        """Puts a trial back, as the next."""
        self._trials.appendleft(trial)

    def prepared(self, trial: TrialSpec) -> None:
        """Notes that a trial has its data."""
        self._parsed = self._parsed or _parses(trial)


def _parses(trial: TrialSpec) -> bool:
    return "spacy" in trial.versions  # of the packages, those that its result depends on
