"""How long a trial takes, from a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparseattn.degrees.method import parse_method
from sparseattn.study.arms import is_method
from sparseattn.study.executors.local import cores
from sparseattn.study.trial import DENSE, TrialSpec, run_trial
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.spec import TrainingSpec

__all__ = ["Estimate", "estimate"]

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


def estimate(
    trials: Sequence[TrialSpec], cache: TrialCache, workers: int, processes: int = 1
) -> Estimate:
    """Times a few steps of a trial, a sparse one if there is one.

    Of several processes that train a trial together, one is timed, with its share of the batch.

    Args:
        trials: The trials of a study.
        cache: Where tokenizers and data come from.
        workers: Workers that share the cores.
        processes: Processes that train a trial.

    Raises:
        SparseAttnError: A trial cannot run.
    """
    import torch

    # A method cannot find its plan in a few steps; training under that takes as long as any.
    # How often it trains is counted.
    known = [one for one in trials if not is_method(one.pattern)]
    sparse = [one for one in known if one.pattern != DENSE]
    trial = (sparse or known or [trials[0].model_copy(update={"pattern": DENSE, "arm": DENSE})])[0]
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // (workers * processes)))
    try:
        whole = cache.prepared(trial.model, trial.task, frozenset(), trial.pipeline).counts
        cold = run_trial(_short(trial, 1, whole, processes), cache=cache)
        warm = run_trial(_short(trial, _STEPS, whole, processes), cache=cache)
    finally:
        torch.set_num_threads(before)
    train = (warm.seconds["train"] - cold.seconds["train"]) / (_STEPS - 1)
    evaluate = warm.seconds["evaluate"] / warm.counts["evaluation_inputs"]
    steps = _steps(trial.training, whole) * _passes(trials)
    seconds = warm.seconds["prepare"] + max(train, 0.0) * steps
    seconds += evaluate * whole["evaluation_inputs"] / processes
    how = f"{_STEPS} steps of {trial.arm} on this machine"
    if processes > 1:
        seconds += cold.seconds["prepare"]  # what a trial reads is not kept for the next
        how += f"; starting the {processes} processes of a trial comes on top"
    return Estimate(seconds, cold.seconds["prepare"], how)


def _passes(trials: Sequence[TrialSpec]) -> float:
    """Trainings a trial, on average: some methods train more than once to find their plan."""
    each = [parse_method(one.pattern).passes if is_method(one.pattern) else 1.0 for one in trials]
    return sum(each) / len(each)


def _steps(training: TrainingSpec, counts: dict[str, float]) -> int:
    if training.steps is not None:
        return training.steps
    batches = math.ceil(
        counts["train_inputs"] / training.batch_size / training.gradient_accumulation
    )
    return math.ceil(batches * (training.epochs or 0))


def _short(trial: TrialSpec, steps: int, whole: dict[str, float], processes: int) -> TrialSpec:
    """The trial with a few steps of one of its processes, on texts drawn like its own."""
    task = trial.task
    training = trial.training.model_copy(
        update={
            "batch_size": trial.training.share(processes),
            "evaluation_batch_size": math.ceil(trial.training.evaluation_batch_size / processes),
        }
    )
    examples = _STEPS * training.batch_size * training.gradient_accumulation
    train = min(examples, int(whole["train_examples"]))
    evaluation = min(_STEPS * training.evaluation_batch_size, int(whole["evaluation_examples"]))
    changes = {
        "task": task.model_copy(
            update={
                "train": task.train.model_copy(update={"count": train}),
                "evaluation": task.evaluation.model_copy(update={"count": evaluation}),
            }
        ),
        "training": training.model_copy(
            update={
                "steps": steps,
                "epochs": None,
                "early_stopping": None,
                "checkpoint_steps": None,
                "report_to": (),
            }
        ),
        "data_fingerprint": "",
    }
    return trial.model_copy(update=changes)
