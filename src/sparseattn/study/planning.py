"""What a study would do: its arms, what they come to, and how long it would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparseattn.degrees.method import parse_method
from sparseattn.study.arms import DENSE, is_method
from sparseattn.study.display import spell_time
from sparseattn.study.executors import check_reached
from sparseattn.study.executors.local import cores, default_workers
from sparseattn.study.grid import Arm, ArmSparsity
from sparseattn.study.preflight import check_machine
from sparseattn.study.resolve import TEXTS, resolve
from sparseattn.study.run_trial import run_trial
from sparseattn.study.session import MOST
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.training.spec import TrainingSpec

__all__ = ["Estimate", "StudyPlan", "estimate", "plan"]

#: Optimiser steps, and batches to evaluate, that are timed.
_STEPS = 6


@dataclass(frozen=True)
class Estimate:
    """How long things take.

    Attributes:
        trial: Seconds of a trial, on average.
        start: Seconds before the first one trains.
        how: What was timed, in words.
    """

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
        for name in ("sparsity", "overall", "degree", "asked for"):
            table.add_column(name, justify="right", no_wrap=True)
        for arm, found in zip(self.study.arms, self.measured, strict=True):
            table.add_row(*map(Text, _cells(arm, found)))
        patterns = {arm.name: arm.pattern for arm in self.study.arms if arm.pattern != arm.name}
        lines = [
            *(f"{name}: {pattern}" for name, pattern in patterns.items()),
            "",
            f"{_counted(self.trials, 'trial')}: {_counted(len(self.study.arms), 'arm')}, "
            f"{_counted(len(spec.seeds), 'seed')}",
            "sparsity and mean degree are those of the layers that carry the pattern, overall is "
            f"the sparsity of the model; over the real tokens of at most {TEXTS} training texts",
            f"about {spell_time(self.seconds)} with {_counted(self.workers, 'worker')}: "
            f"{self.time.trial:.0f} s a trial, from {self.time.how}",
            *(f"note: {notice}" for notice in self.notices),
        ]
        return Group(table, *map(Text, lines))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cells(arm: Arm, found: ArmSparsity) -> list[str]:
    dense = arm.pattern == DENSE
    return [
        arm.name,
        "" if dense else arm.layers,
        f"{found.sparsity:.1%}",
        f"{found.overall:.1%}",
        f"{found.degree:.2f}",
        ", ".join(f"{kind} {value:.4g}" for kind, value in arm.target.items()),
    ]


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
    check_reached(executor)
    measured = tuple(sample.measure(arm.pattern, arm.layers) for arm in study.arms)
    trials, doubles = study.trials()
    timed, changes = _trained_here(trials)
    workers = executor.workers or default_workers()
    time = estimate(timed, cache, workers)
    return StudyPlan(study, measured, len(trials), (*notes, *doubles, *changes), time, workers)


def _trained_here(trials: list[TrialSpec]) -> tuple[list[TrialSpec], list[str]]:
    """What this machine can time in the place of a cluster's trials, and a notice if it differs."""
    training = trials[0].training
    if training.precision != "fp16" or torch.cuda.is_available():
        return trials, []
    other = training.model_copy(update={"precision": "fp32"})
    note = "the time is that of fp32: this machine has no GPU for fp16"
    return [trial.model_copy(update={"training": other}) for trial in trials], [note]


def estimate(trials: Sequence[TrialSpec], cache: TrialCache, workers: int) -> Estimate:
    """Times a few steps of a trial, a sparse one if there is one.

    Args:
        trials: The trials of a study.
        cache: Where tokenizers and data come from.
        workers: Workers that share the cores.

    Raises:
        SparseAttnError: A trial cannot run.
    """
    # A method cannot find its plan in a few steps; training under that takes as long as any.
    # How often it trains is counted.
    known = [trial for trial in trials if not is_method(trial.pattern)]
    sparse = [trial for trial in known if trial.pattern != DENSE]
    trial = (sparse or known or [trials[0].model_copy(update={"pattern": DENSE, "arm": DENSE})])[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // workers))
    try:
        whole = cache.prepared(trial.model, trial.task, frozenset(), trial.pipeline).counts
        cold = run_trial(_short(trial, 1, whole), cache=cache)
        warm = run_trial(_short(trial, _STEPS, whole), cache=cache)
    finally:
        torch.set_num_threads(threads)
    step = max(0.0, warm.seconds["train"] - cold.seconds["train"]) / (_STEPS - 1)
    evaluate = warm.seconds["evaluate"] / warm.counts["evaluation_inputs"]
    passes = [parse_method(t.pattern).passes if is_method(t.pattern) else 1.0 for t in trials]
    seconds = warm.seconds["prepare"] + evaluate * whole["evaluation_inputs"]
    seconds += step * _steps(trial.training, whole) * sum(passes) / len(passes)
    how = f"{_STEPS} steps of {trial.arm} on this machine"
    return Estimate(seconds, cold.seconds["prepare"], how)


def _steps(training: TrainingSpec, counts: dict[str, float]) -> int:
    if training.steps is not None:
        return training.steps
    inputs = counts["train_inputs"]
    batches = math.ceil(inputs / training.batch_size / training.gradient_accumulation)
    return math.ceil(batches * (training.epochs or 0))


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
    quick = {
        "steps": steps,
        "epochs": None,
        "early_stopping": None,
        "checkpoint_steps": None,
        "report_to": (),
    }
    changes = {
        "task": task.model_copy(update=fewer),
        "training": training.model_copy(update=quick),
        "data_fingerprint": "",
    }
    return trial.model_copy(update=changes)
