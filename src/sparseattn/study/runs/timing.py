"""How long a trial takes, from a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparseattn.study.executors.local import cores
from sparseattn.study.file.arms import is_method
from sparseattn.study.trials.trial import DENSE, TrialSpec, run_trial
from sparseattn.study.trials.trial_cache import TrialCache
from sparseattn.tasks.spec import TrainingSpec

__all__ = ["Estimate", "estimate"]

#: Optimiser steps, and batches to evaluate, that are timed.
_STEPS = 6


@dataclass(frozen=True)
class Estimate:
    """How long things take.

    Attributes:
        trial: Seconds of a trial.
        start: Seconds before the first one trains.
        how: What was timed, in words.
    """

    trial: float
    start: float
    how: str


def estimate(trials: Sequence[TrialSpec], cache: TrialCache, workers: int) -> Estimate:
    """Times a few steps of a trial, a sparse one if there is one.

    Args:
        trials: The trials of a study.
        cache: Where tokenizers and data come from.
        workers: Processes that share the cores.

    Raises:
        SparseAttnError: A trial cannot run.
    """
    import torch

    # A method cannot find its plan in a few steps; training under that takes as long as any.
    known = [one for one in trials if not is_method(one.pattern)]
    sparse = [one for one in known if one.pattern != DENSE]
    trial = (sparse or known or [trials[0].model_copy(update={"pattern": DENSE, "arm": DENSE})])[0]
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, cores() // workers))
    try:
        whole = cache.prepared(trial.model, trial.task, frozenset(), trial.pipeline).counts
        cold = run_trial(_short(trial, 1, whole), cache=cache)
        warm = run_trial(_short(trial, _STEPS, whole), cache=cache)
    finally:
        torch.set_num_threads(before)
    train = (warm.seconds["train"] - cold.seconds["train"]) / (_STEPS - 1)
    evaluate = warm.seconds["evaluate"] / warm.counts["evaluation_inputs"]
    seconds = warm.seconds["prepare"] + max(train, 0.0) * _steps(trial.training, whole)
    seconds += evaluate * whole["evaluation_inputs"]
    how = f"{_STEPS} steps of {trial.arm} on this machine"
    return Estimate(seconds, cold.seconds["prepare"], how)


def _steps(training: TrainingSpec, counts: dict[str, float]) -> int:
    if training.steps is not None:
        return training.steps
    batches = math.ceil(
        counts["train_inputs"] / training.batch_size / training.gradient_accumulation
    )
    return math.ceil(batches * (training.epochs or 0))


def _short(trial: TrialSpec, steps: int, whole: dict[str, float]) -> TrialSpec:
    """The trial with a few steps, on texts drawn like its own."""
    task, training = trial.task, trial.training
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
