"""What a study would do: its arms, what they come to, and how long it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparseattn.degrees.method import is_method, parse_method
from sparseattn.study.arms import DENSE
from sparseattn.study.executors import reached
from sparseattn.study.executors.local import default_threads, default_workers
from sparseattn.study.grid import ArmSparsity
from sparseattn.study.preflight import check_machine
from sparseattn.study.resolve import TEXTS, resolve
from sparseattn.study.run_trial import run_trial
from sparseattn.study.session import MOST
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.training.environment import unfit
from sparseattn.words import counted, duration

#: Optimiser steps, and batches to evaluate, that are timed.
_STEPS = 6


class Estimate(NamedTuple):
    """Seconds of a trial on average, and before the first one trains; what was timed, in words."""

    trial: float
    start: float
    how: str


@dataclass(frozen=True)
class StudyPlan:
    """A study before anything is trained.

    Attributes:
        study: The study.
        measured: What each arm comes to on a sample of training texts.
        trials: How many trials it has.
        notices: Arms that are another one's double, and what the user should know of the data.
        time: How long it would take.
        workers: Local worker processes that the time is for.
    """

    study: Study
    measured: tuple[ArmSparsity, ...]
    trials: int
    notices: tuple[str, ...]
    time: Estimate
    workers: int

    @property
    def seconds(self) -> float:
        """How long the study would take."""
        return self.time.trial * self.trials / min(self.workers, self.trials) + self.time.start

    def __rich__(self) -> Group:
        """A table of the arms, their patterns, and how long they would take."""
        spec = self.study.spec
        table = Table(title=spec.name, title_justify="left")
        table.add_column("arm", overflow="fold")
        table.add_column("layers", no_wrap=True)
        for name in ("sparsity", "overall", "degree", "target"):
            table.add_column(name, justify="right", no_wrap=True)
        for arm, found in zip(self.study.arms, self.measured, strict=True):
            cells = [
                arm.name,
                "" if arm.pattern == DENSE else arm.layers,
                f"{found.sparsity:.1%}",
                f"{found.overall:.1%}",
                f"{found.degree:.2f}",
                ", ".join(f"{kind} {value:.4g}" for kind, value in arm.target.items()),
            ]
            table.add_row(*map(Text, cells))
        patterns = {arm.name: arm.pattern for arm in self.study.arms if arm.pattern != arm.name}
        lines = [
            *(f"{name}: {pattern}" for name, pattern in patterns.items()),
            "",
            f"{counted(self.trials, 'trial')}: {counted(len(self.study.arms), 'arm')}, "
            f"{counted(len(spec.seeds), 'seed')}",
            "sparsity and mean degree are those of the layers that carry the pattern, overall is "
            f"the sparsity of the model; over the real tokens of at most {TEXTS} training texts",
            f"about {duration(self.seconds)} with {counted(self.workers, 'worker')}: "
            f"{self.time.trial:.0f} s a trial, from {self.time.how}",
            *(f"note: {notice}" for notice in self.notices),
        ]
        return Group(table, *map(Text, lines))


def plan(spec: StudySpec, max_trials: int = MOST) -> StudyPlan:
    """Works out what a study would do; trains no more than a few steps, to see how long they take.

    Args:
        spec: The study.
        max_trials: Trials that its grid may have.

    Raises:
        SparseAttnError: The spec is wrong, as in `sparseattn.study.run`.
    """
    cache, executor = TrialCache(), spec.executor
    check_machine(spec, executor)
    study, sample, notes = resolve(spec, max_trials, cache, here=executor.kind == "local")
    with reached(executor, start=False):
        pass
    measured = tuple(sample.measure(arm.pattern, arm.layers) for arm in study.arms)
    trials, doubles = study.trials()
    notices, timed, training = [*notes, *doubles], trials, spec.training
    if (why := unfit(training.precision)) is not None:  # it is for a cluster
        here = {"training": training.model_copy(update={"precision": "fp32"})}
        timed = [trial.model_copy(update=here) for trial in trials]
        notices.append(f"the time is that of fp32: {training.precision} {why}")
    workers = executor.workers or default_workers()
    time = _estimate(timed, cache, executor.threads or default_threads(workers))
    return StudyPlan(study, measured, len(trials), tuple(notices), time, workers)


def _estimate(trials: Sequence[TrialSpec], cache: TrialCache, threads: int) -> Estimate:
    """Times a few steps of a trial, a sparse one if there is one."""
    # A method cannot find its plan in a few steps: how often it trains is counted instead.
    known = [trial for trial in trials if not is_method(trial.pattern)]
    sparse = [trial for trial in known if trial.pattern != DENSE]
    trial = (sparse or known or [trials[0].model_copy(update={"pattern": DENSE, "arm": DENSE})])[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = cache.prepared(trial.model, trial.task, frozenset(), trial.pipeline).counts
        cold = run_trial(_short(trial, 1, whole), cache=cache)
        warm = run_trial(_short(trial, _STEPS, whole), cache=cache)
    finally:
        torch.set_num_threads(before)
    step = max(0.0, warm.seconds["train"] - cold.seconds["train"]) / (_STEPS - 1)
    evaluate = warm.seconds["evaluate"] / warm.counts["evaluation_inputs"]
    passes = [parse_method(t.pattern).passes if is_method(t.pattern) else 1.0 for t in trials]
    starts = {t.dense.digest for t in trials if t.start == "fine-tuned"}  # trained once each
    seconds = warm.seconds["prepare"] + evaluate * whole["evaluation_inputs"]
    steps = trial.training.optimizer_steps(whole["train_inputs"])
    seconds += step * steps * (sum(passes) + len(starts)) / len(trials)
    how = f"{_STEPS} steps of {trial.arm} on this machine"
    return Estimate(seconds, cold.seconds["prepare"], how)


def _short(trial: TrialSpec, steps: int, whole: dict[str, float]) -> TrialSpec:
    """The trial with a few steps, on texts drawn like its own."""
    task, training = trial.task, trial.training
    examples = _STEPS * training.batch_size * training.gradient_accumulation
    train = min(examples, int(whole["train_examples"]))
    evaluation = min(_STEPS * training.evaluation_batch_size, int(whole["evaluation_examples"]))
    fewer = {
        "train": task.train.model_copy(update={"count": train}),
        "evaluation": task.evaluation.model_copy(update={"count": evaluation}),
    }
    quick: dict[str, Any] = dict.fromkeys(("epochs", "early_stopping", "checkpoint_steps"))
    quick |= {"steps": steps, "report_to": ()}
    changes = {
        "task": task.model_copy(update=fewer),
        "training": training.model_copy(update=quick),
        "data_fingerprint": "",
        "start": "pretrained",  # a step takes as long, and no dense model is trained first
    }
    return trial.model_copy(update=changes)
