"""Running what is missing of a study."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sparseattn.study.display import Display, label
from sparseattn.study.executors.base import Event, Executor
from sparseattn.study.locks import TrialLocks
from sparseattn.study.record import DONE
from sparseattn.study.store import Store, writing
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_runner import give_up

__all__ = ["Runner", "TrialQueue"]

#: How often a trial is started again after what ran it died.
_RETRIES = 1

#: Seconds between two looks at trials that another process runs.
_LOOK = 1.0


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
        first = next(filter(_parses, self._trials), None)
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
        hold = not self._parsed and any(map(_parses, running))
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


@dataclass
class Runner:
    """Runs trials until each of them is in the folder.

    Attributes:
        store: The study's folder.
        executor: What runs them.
        display: What tells the user.
        locks: The locks of this process.
    """

    store: Store
    executor: Executor
    display: Display
    locks: TrialLocks
    _waiting: TrialQueue = field(default_factory=lambda: TrialQueue(()))
    _running: dict[str, TrialSpec] = field(default_factory=dict)
    _elsewhere: dict[str, TrialSpec] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _next_look: float = 0.0

    def run(self, trials: Iterable[TrialSpec]) -> None:
        """Runs trials.

        Raises:
            StudyError: The folder cannot be written to, or the executor cannot go on.
        """
        self._waiting = TrialQueue(trials)
        while self._waiting or self._running or self._elsewhere:
            self._submit()
            for event in self.executor.poll(0.2):
                self._handle(event)
            self._look_elsewhere()

    def _submit(self) -> None:
        while self.executor.free > 0:
            trial = self._waiting.take(self._running.values())
            if trial is None:
                return
            self._running[trial.digest] = trial
            self.display.start(trial)
            self.executor.submit(trial)

    def _handle(self, event: Event) -> None:
        trial = self._running[event.digest]
        if event.kind == "progress":
            self.display.advance(trial, event.phase, event.share)
            if event.phase != "prepare":
                self._waiting.prepared(trial)
            return
        del self._running[event.digest]
        if event.kind == "busy":
            self._elsewhere[event.digest] = trial
            self.display.end(trial, None)
        elif event.kind == "lost" and not self.store.has(trial.digest):
            self._retry(trial, event.reason)
        else:
            self.display.end(trial, self._outcome(trial))

    def _outcome(self, trial: TrialSpec) -> str:
        result = self.store.read(trial.digest)
        if result["status"] != DONE:
            return f"failed: {result['reason']}"
        name = result["headline"]
        value = result["metrics"].get(name)
        return f"{name} {'none' if value is None else format(value, '.4f')}"

    def _retry(self, trial: TrialSpec, reason: str) -> None:
        digest = trial.digest
        self._lost[digest] = self._lost.get(digest, 0) + 1
        self.display.end(trial, None)
        if self._lost[digest] <= _RETRIES:
            self.display.say(f"{label(trial)}: {reason}; it is started again")
            self._waiting.put(trial)
        elif self.locks.take(digest):
            with writing(self.store.folder):
                files = give_up(trial, reason, self.store.work(digest))
            self.store.put(digest, files)
            self.locks.release(digest)
            self.display.end(trial, self._outcome(trial))
        else:
            self._elsewhere[digest] = trial

    def _look_elsewhere(self) -> None:
        """Looks at the trials of other processes: done, or free again because theirs died."""
        now = time.monotonic()
        if not self._elsewhere or now < self._next_look:
            return
        self._next_look = now + _LOOK
        for digest, trial in list(self._elsewhere.items()):
            if self.store.has(digest):
                del self._elsewhere[digest]
                self.display.end(trial, f"{self._outcome(trial)} (by another process)")
            elif not self._waiting and self.executor.free > 0 and self.locks.take(digest):
                self.locks.release(digest)
                del self._elsewhere[digest]
                self._waiting.put(trial)
