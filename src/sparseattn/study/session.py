"""Running, resuming and reading a study: what the commands and Python users call."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.study.archive import Source, import_trials
from sparseattn.study.display import Display, say
from sparseattn.study.executors import make, reached
from sparseattn.study.locks import TrialLocks, remove_stale_work
from sparseattn.study.preflight import (
    check_data,
    check_machine,
    check_new,
    check_same,
    check_versions,
)
from sparseattn.study.reading import validated
from sparseattn.study.record import FAILED
from sparseattn.study.results import Results, collect, write
from sparseattn.study.runner import Runner
from sparseattn.study.spec import ExecutorSpec, StudySpec, load_spec, spec_of
from sparseattn.study.store import DAMAGED, STUDY, Store
from sparseattn.study.study import Study, create
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_runner import RUN_TRIAL
from sparseattn.training.environment import check_alone
from sparseattn.words import counted

#: Trials that a grid may have unless the user says otherwise.
MOST = 10_000


@dataclass(frozen=True)
class Options:
    """How to run; nothing here changes a result.

    Attributes:
        executor: Changes to the executor of the spec.
        max_trials: Trials that a grid may have.
        retry_failed: Run trials again that failed before.
        other_versions: Go on although packages have other versions than when the study was begun.
        import_trials: Other studies, as folders or packed, whose trials are taken over.
        confirm: Asked before anything is trained, with a question and the number of trials.
        trial: The function that runs a trial, as `module:function`.
    """

    executor: Mapping[str, Any] = field(default_factory=dict)
    max_trials: int = MOST
    retry_failed: bool = False
    other_versions: bool = False
    import_trials: Sequence[str | Path] = ()
    confirm: Callable[[str, int], bool] | None = None
    trial: str = RUN_TRIAL


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        folder: The study's folder.
        trials: Trials of the study.
        run: How many were missing when it began.
        failed: Trials that failed, each with its reason.
    """

    folder: Path
    trials: int
    run: int
    failed: dict[str, str]


def run(
    spec: str | Path | Mapping[str, Any] | StudySpec,
    out: str | Path,
    options: Options | None = None,
    console: Console | None = None,
) -> RunOutcome:
    """Runs what is missing of a study.

    Args:
        spec: A study file, or its values.
        out: The study's folder; made if it is not there.
        options: How to run.
        console: Where progress goes; the terminal's error stream by default.

    Returns:
        How it ended; failed trials do not raise.

    Raises:
        StudyError: The spec is wrong, the folder holds something else or cannot be written to.
            Nothing was written if the spec or the folder was wrong.
        DataError: The data cannot be read or do not fit the task.
        KeyboardInterrupt: Somebody stopped it; what was finished is in the folder.

    >>> from sparseattn.study import run
    >>> run("studies/smoke.yaml", "runs/smoke")  # doctest: +SKIP
    """
    session = _Session(out, options, console)
    if not isinstance(spec, StudySpec):
        spec = spec_of(spec) if isinstance(spec, Mapping) else load_spec(spec)
    folder = session.store.folder
    if (folder / STUDY).is_file():
        before = Study.load(folder)
        study = check_same(before, spec, folder)
        # What it says of its report may have changed.
        return session.run(study, changed=study.spec.declared != before.spec.declared)
    check_new(folder)
    from sparseattn.study.resolve import resolve
    from sparseattn.study.trial_cache import TrialCache

    executor, most = session.executor(spec), session.options.max_trials
    check_machine(spec, executor)
    study, _, notices = resolve(spec, most, TrialCache(), here=executor.kind == "local")
    return session.run(study, notices)


def resume(
    folder: str | Path, options: Options | None = None, console: Console | None = None
) -> RunOutcome:
    """Runs what is missing of a study that was begun.

    Raises:
        StudyError: See `run`.
    """
    return _Session(folder, options, console).run(Study.load(Path(folder)))


class _Session:
    """One run, in a study's folder."""

    def __init__(
        self, folder: str | Path, options: Options | None, console: Console | None
    ) -> None:
        check_alone()
        self.store, self.options = Store(folder), options or Options()
        self.sources = [Source.at(place) for place in self.options.import_trials]
        self.screen = console or Console(stderr=True)

    def executor(self, spec: StudySpec) -> ExecutorSpec:
        where = {**spec.executor.model_dump(), **self.options.executor}
        return validated(ExecutorSpec, where, ("executor",))

    def run(self, study: Study, notices: Sequence[str] = (), changed: bool = False) -> RunOutcome:
        """Imports and runs what is missing, and writes the tables, and the study if it changed."""
        store, executor = self.store, self.executor(study.spec)
        trials, doubles = study.trials()
        missing, results = self._missing(trials)
        needed = bool(missing or (self.sources and results.failed))
        if needed:
            check_machine(study.spec, executor)
        # What is wrong is said alone, before what is only worth knowing.
        with reached(executor) if needed else nullcontext():
            for notice in (*notices, *doubles):
                say(self.screen, f"note: {notice}")
            if needed and self.sources:
                self._import(study, trials)
                missing, results = self._missing(trials)
            for problem in results.damaged.values():
                say(self.screen, f"{problem}; it is run again")
            if missing:
                self._train(study, missing, results, executor)
                results = collect(store, trials)
            elif changed:
                create(study, store)
        write(store, results)
        reasons = {digest: str(results.rows[digest]["reason"]) for digest in results.failed}
        return RunOutcome(store.folder, len(trials), len(missing), reasons)

    def _missing(self, trials: list[TrialSpec]) -> tuple[list[TrialSpec], Results]:
        results = collect(self.store, trials)
        done = set(results.rows)
        if self.options.retry_failed:
            done -= set(results.failed)
        return [trial for trial in trials if trial.digest not in done], results

    def _import(self, study: Study, trials: list[TrialSpec]) -> None:
        """Takes trials over from other studies, and says how many of each."""
        _check_fresh(study, self.store, self.options)
        create(study, self.store)
        with TrialLocks(self.store.folder) as locks:
            for source in self.sources:
                count, damaged = import_trials(source, study, trials, self.store, locks)
                for problem in damaged:
                    say(self.screen, f"{problem}; it is not taken over")
                say(self.screen, f"note: trials taken over from {source.path}: {count}")

    def _train(
        self, study: Study, missing: list[TrialSpec], results: Results, executor: ExecutorSpec
    ) -> None:
        store, count = self.store, len(missing)
        question = f"{count} trials are to run in {store.folder}. Go on?"
        if self.options.confirm is not None and not self.options.confirm(question, count):
            raise KeyboardInterrupt
        if not self.sources:  # else it was checked before trials were imported
            _check_fresh(study, store, self.options)
        with ExitStack() as stack:
            with suppress(ValueError):  # not the main thread: a request to end cannot be caught
                before = signal.signal(signal.SIGTERM, signal.default_int_handler)
                stack.callback(signal.signal, signal.SIGTERM, before)
            create(study, store)
            try:
                with TrialLocks(store.folder) as locks:
                    _remove_replaced(store, locks, results, missing)
                    if not self.screen.is_terminal:  # a terminal shows bars
                        say(self.screen, _begins(study, count, store, executor))
                    with (
                        closing(make(executor, store, locks, self.options.trial)) as workers,
                        Display(count, self.screen) as display,
                    ):
                        Runner(store, workers, display, locks).run(missing)
                    remove_stale_work(store, locks)
            except BaseException:
                with suppress(StudyError):  # the first error counts
                    write(store, collect(store, study.trials()[0]))
                raise


def _begins(study: Study, count: int, store: Store, executor: ExecutorSpec) -> str:
    how = "on Ray"
    if executor.kind == "local":
        workers = executor.workers
        how = "on this machine" if workers is None else f"by {counted(workers, 'worker')}"
    what = f"running {counted(count, 'trial')} of the study {study.spec.name} {how}"
    return f"{what}; results go to {store.folder}"


def _check_fresh(study: Study, store: Store, options: Options) -> None:
    """Makes sure, for a study that was begun before, that new trials fit the old ones."""
    if (store.folder / STUDY).is_file():
        if not options.other_versions:
            check_versions(study, store.folder)
        check_data(study, store.folder)


def _remove_replaced(
    store: Store, locks: TrialLocks, results: Results, missing: list[TrialSpec]
) -> None:
    """Removes damaged trials, and failed ones that are to run again; not what another runs now."""
    replaced = {*results.failed, *results.damaged}
    for digest in (trial.digest for trial in missing if trial.digest in replaced):
        if locks.take(digest):
            if store.status(digest) in (FAILED, DAMAGED):
                store.remove(digest)
            locks.release(digest)
