"""Running what is missing of a study."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sparseattn.errors import StudyError
from sparseattn.study.display import Display, label
from sparseattn.study.executors.base import Event, Executor, Job
from sparseattn.study.locks import TrialLocks
from sparseattn.study.record import DONE, failed
from sparseattn.study.store import Store, writing
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_queue import TrialQueue
from sparseattn.study.trial_runner import Log, where

__all__ = ["Runner"]

#: How often a trial is started again after what ran it died.
_RETRIES = 1

#: Seconds between two looks at trials that another process runs.
_LOOK = 1.0


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
                self._take(event)
            self._look()

    def _submit(self) -> None:
        while self.executor.free > 0:
            trial = self._waiting.take(self._running.values())
            if trial is None:
                return
            self._running[trial.digest] = trial
            self.display.start(trial)
            self.executor.submit(Job(trial.digest, trial.model_dump(mode="json")))

    def _take(self, event: Event) -> None:
        if event.kind == "fatal":
            raise StudyError(event.reason)
        trial = self._running[event.digest]
        if event.kind == "progress":
            self.display.advance(trial, event.phase, event.share)
            if event.phase != "prepare":
                self._waiting.prepared(trial)
            return
        del self._running[event.digest]
        if event.kind == "lost":
            self._retry(trial, event.reason)
        elif event.kind == "busy":
            self._elsewhere[event.digest] = trial
            self.display.end(trial, None)
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
        if self.store.has(trial.digest):  # it was stored just before
            self.display.end(trial, self._outcome(trial))
            return
        self._lost[trial.digest] = self._lost.get(trial.digest, 0) + 1
        self.display.end(trial, None)
        if self._lost[trial.digest] <= _RETRIES:
            self.display.say(f"{label(trial)}: {reason}; it is started again")
            self._waiting.put(trial)
        elif self.locks.take(trial.digest):
            self._give_up(trial, reason)
        else:
            self._elsewhere[trial.digest] = trial

    def _give_up(self, trial: TrialSpec, reason: str) -> None:
        work = self.store.work(trial.digest)
        with writing(self.store.folder):
            work.mkdir(parents=True, exist_ok=True)
            log = Log(work)
            log.add("failed", reason=reason)
            values = trial.model_dump(mode="json")
            files = failed(values, trial.digest, reason, where(), log.text())
        self.store.put(trial.digest, files)
        self.locks.release(trial.digest)
        self.display.end(trial, self._outcome(trial))

    def _look(self) -> None:
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
