"""What a study would do: its arms, what they come to, and how long it would take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparseattn.study.arms import DENSE
from sparseattn.study.display import spell_time
from sparseattn.study.estimate import Estimate, estimate
from sparseattn.study.executors import check_reached
from sparseattn.study.executors.local import LocalExecutor
from sparseattn.study.grid import Arm, ArmSparsity
from sparseattn.study.preflight import check_machine
from sparseattn.study.resolve import resolve
from sparseattn.study.sample import TEXTS
from sparseattn.study.session import MOST
from sparseattn.study.spec import StudySpec
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_cache import TrialCache

__all__ = ["Planned", "plan"]


@dataclass(frozen=True)
class Planned:
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


def plan(spec: StudySpec, max_trials: int = MOST, out: Path | None = None) -> Planned:
    """Works out what a study would do; trains no more than a few steps, to see how long they take.

    Args:
        spec: The study.
        max_trials: Trials that its grid may have.
        out: A folder with finished trials of it, to take the time from.

    Raises:
        SparseAttnError: The spec is wrong, as in `sparseattn.study.run`.
    """
    cache = TrialCache()
    here = spec.executor.kind == "local"
    check_machine(spec, spec.executor)
    study, sample, told = resolve(spec, max_trials, cache, here)
    check_reached(spec.executor)
    measured = tuple(sample.measure(arm.pattern, arm.layers) for arm in study.arms)
    trials, notices = study.trials()
    timed, changed = _trained_here(trials)
    where = spec.executor
    local = LocalExecutor(Store(out or "."), workers=where.workers, processes=where.processes)
    time = estimate(timed, cache, local.workers, where.processes)
    return Planned(study, measured, len(trials), (*told, *notices, *changed), time, local.workers)


def _trained_here(trials: list[TrialSpec]) -> tuple[list[TrialSpec], list[str]]:
    """What this machine can time in the place of a cluster's trials, and a notice if it differs."""
    training = trials[0].training
    if training.precision != "fp16" or torch.cuda.is_available():
        return trials, []
    other = training.model_copy(update={"precision": "fp32"})
    told = "the time is that of fp32: this machine has no GPU for fp16"
    return [trial.model_copy(update={"training": other}) for trial in trials], [told]
