"""Running, resuming and reading a study: what the commands and Python users call."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.study.display import display, say
from sparseattn.study.executors import make, reached
from sparseattn.study.import_trials import Source, import_trials
from sparseattn.study.locks import TrialLocks, remove_stale_work
from sparseattn.study.preflight import (
    check_alone,
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
from sparseattn.study.trial_cache import TrialCache
from sparseattn.study.trial_runner import RUN_TRIAL

__all__ = ["MOST", "Options", "Outcome", "resume", "run"]

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
        reuse: Folders of other studies, or what `pack` made of them, whose trials are taken over.
        confirm: Asked before anything is trained, with a question and the number of trials.
        trial: The function that runs a trial, as `module:function`.
    """

    executor: Mapping[str, Any] = field(default_factory=dict)
    max_trials: int = MOST
    retry_failed: bool = False
    other_versions: bool = False
    reuse: Sequence[str | Path] = ()
    confirm: Callable[[str, int], bool] | None = None
    trial: str = RUN_TRIAL


@dataclass(frozen=True)
class Outcome:
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
) -> Outcome:
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
    options = options or Options()
    made = spec if isinstance(spec, StudySpec) else _read(spec)
    store = Store(out)
    others = [Source.at(place) for place in options.reuse]
    if (store.folder / STUDY).is_file():
        before = Study.load(store.folder)
        study = check_same(before, made, store.folder)
        # Its name, question or contrasts may have changed.
        changed = study.spec.declared != before.spec.declared
        return _run(study, store, options, console, others, changed=changed)
    check_new(store.folder)
    from sparseattn.study.resolve import resolve

    executor = _executor(made, options)
    check_machine(made, executor)
    here = executor.kind == "local"
    study, _, notices = resolve(made, options.max_trials, TrialCache(), here)
    return _run(study, store, options, console, others, notices)


def resume(
    folder: str | Path, options: Options | None = None, console: Console | None = None
) -> Outcome:
    """Runs what is missing of a study that was begun.

    Args:
        folder: The study's folder.
        options: How to run.
        console: Where progress goes.

    Raises:
        StudyError: See `run`.
    """
    options = options or Options()
    others = [Source.at(place) for place in options.reuse]
    return _run(Study.load(Path(folder)), Store(folder), options, console, others)


def _read(spec: str | Path | Mapping[str, Any]) -> StudySpec:
    return spec_of(spec) if isinstance(spec, Mapping) else load_spec(spec)


def _run(
    study: Study,
    store: Store,
    options: Options,
    console: Console | None,
    others: Sequence[Source] = (),
    notices: Sequence[str] = (),
    changed: bool = False,
) -> Outcome:
    check_alone()
    executor = _executor(study.spec, options)
    trials, doubles = study.trials()
    missing, results = _missing(store, trials, options)
    wanted = bool(missing or (others and results.failed))
    if wanted:
        check_machine(study.spec, executor)
    # What is wrong is said alone, before what is only worth knowing.
    with reached(executor) if wanted else nullcontext():
        screen = console or Console(stderr=True)
        for notice in (*notices, *doubles):
            say(screen, f"note: {notice}")
        if wanted and others:
            _reused(study, store, others, options, screen)
            missing, results = _missing(store, trials, options)
        for problem in results.damaged.values():
            say(screen, f"{problem}; it is run again")
        if missing:
            results = _filled(study, store, results, missing, options, screen)
        elif changed:
            create(study, store)
    if missing or results.read or not (store.folder / "results.csv").is_file():
        write(store, results)
    reasons = {digest: str(results.rows[digest]["reason"]) for digest in results.failed}
    return Outcome(store.folder, len(trials), len(missing), reasons)


def _filled(
    study: Study,
    store: Store,
    results: Results,
    missing: list[TrialSpec],
    options: Options,
    screen: Console,
) -> Results:
    """The results with those that were missing."""
    question = f"{len(missing)} trials are to run in {store.folder}. Go on?"
    if options.confirm is not None and not options.confirm(question, len(missing)):
        raise KeyboardInterrupt
    if not options.reuse:  # else it was checked before trials were taken over
        _check_fresh(study, store, options)
    trials = study.trials()[0]
    with _interruptible():
        create(study, store)
        try:
            _train(study, store, results, missing, options, screen)
        except BaseException:
            with suppress(StudyError):  # the first error counts
                write(store, collect(store, trials))
            raise
        return collect(store, trials)


def _reused(
    study: Study, store: Store, others: Sequence[Source], options: Options, screen: Console
) -> None:
    """Takes trials over from other studies, and says how many of each."""
    _check_fresh(study, store, options)
    create(study, store)
    trials, _ = study.trials()
    with TrialLocks(store.folder) as locks:
        for other in others:
            taken = import_trials(other, study, trials, store, locks)
            for problem in taken.damaged:
                say(screen, f"{problem}; it is not taken over")
            say(screen, f"note: trials taken over from {other.path}: {taken.words}")


def _missing(
    store: Store, trials: list[TrialSpec], options: Options
) -> tuple[list[TrialSpec], Results]:
    results = collect(store, trials)
    done = set(results.rows)
    if options.retry_failed:
        done -= set(results.failed)
    return [trial for trial in trials if trial.digest not in done], results


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


def _executor(spec: StudySpec, options: Options) -> ExecutorSpec:
    where = {**spec.executor.model_dump(), **options.executor}
    return validated(ExecutorSpec, where, ("executor",))


def _train(
    study: Study,
    store: Store,
    results: Results,
    missing: list[TrialSpec],
    options: Options,
    screen: Console,
) -> None:
    with TrialLocks(store.folder) as locks:
        _remove_replaced(store, locks, results, missing)
        executor = make(_executor(study.spec, options), store, locks, options.trial)
        try:
            with display(len(missing), screen) as shown:
                Runner(store, executor, shown, locks).run(missing)
        finally:
            executor.close()
        remove_stale_work(store, locks)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treats a polite request to end like Ctrl-C, where signals can be caught."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
