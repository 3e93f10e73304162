"""Running what is missing of a study."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from sparseattn.study.display import Display, label, say
from sparseattn.study.locks import TrialLocks
from sparseattn.study.record import DONE
from sparseattn.study.store import Store, writing
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_runner import failed_files

#: How often a trial is started again after what ran it died.
_RETRIES = 1

#: Seconds between two looks at trials that another process runs.
_LOOK = 1.0


@dataclass(frozen=True)
class Event:
    """What happened to a trial, or to all of them.

    Attributes:
        kind: `progress`; `stored`: it is in the folder now, done or failed; `busy`: another process
            has locked it; `lost`: what ran it died, for this `reason`; `notice`: what `reason` says
            of no trial.
        digest: Which trial.
        phase: What it is doing; how much of that is done is its `share`, in [0, 1].
    """

    kind: Literal["progress", "stored", "busy", "lost", "notice"]
    digest: str = ""
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


def _parses(trial: TrialSpec) -> bool:
    return "spacy" in trial.versions  # of the packages, those that its result depends on


class Runner:
    """Runs trials until each of them is in the folder.

    They go in the order of the study but for the first that parses. A parse of the data can take
    longer than a trial, and is kept for all trials and processes: one trial that needs it goes
    first, and no second one before the first has got to its training.
    """

    def __init__(
        self, store: Store, executor: Executor, display: Display, locks: TrialLocks
    ) -> None:
        self.store, self.executor, self.display, self.locks = store, executor, display, locks
        self._waiting: list[TrialSpec] = []
        self._running: dict[str, TrialSpec] = {}
        self._elsewhere: dict[str, TrialSpec] = {}
        self._lost: Counter[str] = Counter()
        self._parsed, self._next_look = False, 0.0

    def run(self, trials: Iterable[TrialSpec]) -> None:
        """Runs trials.

        Raises:
            StudyError: The folder cannot be written to, or the executor cannot go on.
        """
        self._waiting = list(trials)
        if first := next(filter(_parses, self._waiting), None):
            self._waiting.remove(first)
            self._waiting.insert(0, first)
        while self._waiting or self._running or self._elsewhere:
            self._submit()
            for event in self.executor.poll(0.2):
                self._handle(event)
            self._look_elsewhere()

    def _submit(self) -> None:
        while self.executor.free > 0:
            hold = not self._parsed and any(map(_parses, self._running.values()))
            trial = next((t for t in self._waiting if not (hold and _parses(t))), None)
            if trial is None:
                return
            self._waiting.remove(trial)
            self._running[trial.digest] = trial
            self.display.start(trial)
            self.executor.submit(trial)

    def _handle(self, event: Event) -> None:
        if event.kind == "notice":
            say(self.display.console, event.reason)
            return
        trial = self._running[event.digest]
        if event.kind == "progress":
            self.display.advance(trial, event.phase, event.share)
            self._parsed |= event.phase != "prepare" and _parses(trial)
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
        self._lost[digest] += 1
        self.display.end(trial, None)
        if self._lost[digest] <= _RETRIES:
            say(self.display.console, f"{label(trial)}: {reason}; it is started again")
            self._waiting.insert(0, trial)
        elif self.locks.take(digest):
            with writing(self.store.folder):
                files = failed_files(trial, reason, self.store.work(digest))
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
                self._waiting.insert(0, trial)
