"""Trials of methods: they find their plan on the training texts, some by training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseattn.degrees.learn import steps_of
from sparseattn.degrees.method import Context, parse_method
from sparseattn.errors import PlanError, TrialFailed, UnsupportedModelError
from sparseattn.files import write_whole
from sparseattn.plan import Plan
from sparseattn.study.trial import TrialSpec
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.arguments import arguments, seed_of
from sparseattn.training.spec import Progress, TrainingSpec
from sparseattn.training.train import Watch, headline, last_checkpoint, split

#: What a trial that was interrupted after its plan was found goes on from.
_FILE = "plan.json"

#: Records of the search phase that are kept.
_POINTS = 50


@dataclass(frozen=True)
class MethodRun:
    """A plan, and what finding it took.

    Attributes:
        plan: The plan, as `Plan.to_json` writes it.
        training: How to train under it: the steps that are left.
        steps: Optimiser steps that were taken.
        history: A record for some of them: `step`, `loss`, `density`, `target`, `temperature`.
        phases: The headline metric after the search phase (`search`) and when degrees are discrete
            (`discretized`).
    """

    plan: dict[str, Any]
    training: TrainingSpec
    steps: int
    history: list[dict[str, float]]
    phases: dict[str, float]


def run_method(
    spec: TrialSpec,
    model: Any,
    prepared: Prepared,
    tokenizer: Any,
    folder: Path,
    progress: Progress,
) -> MethodRun:
    """Finds the plan of a method, or reads the one that was found before an interruption.

    A method that trains does so in place, and goes on from its own checkpoints, if
    `checkpoint_steps` has it keep any.

    Raises:
        TrialFailed: The sparsity cannot be reached on these texts, or not with this model.
    """
    training, _ = split(prepared, spec.training)
    how = arguments(spec.training, folder, len(training), spec.seed)
    total, path = steps_of(how, len(training)), folder / _FILE
    # Without a checkpoint under the plan the weights are those of the end of the search phase,
    # which is read again where it kept them, and else run again.
    if path.is_file() and last_checkpoint(folder):
        values = json.loads(path.read_text(encoding="utf-8"))
    else:
        # The training under the plan goes through the data in another order. Published numbers
        # hang on the name of the seed.
        order = how.data_seed = seed_of("soft", spec.seed)
        # Without a number of steps to keep checkpoints by, early stopping would have one an epoch.
        if spec.training.checkpoint_steps is None:
            how.save_strategy = "no"
        # Loggers and early stopping are for the training under the plan alone.
        how.report_to = []
        how.load_best_model_at_end, how.eval_strategy = False, "no"
        how.restore_callback_states_from_checkpoint = False
        context = Context(
            model=model,
            tokenizer=tokenizer,
            data=training,
            collator=prepared.collator,
            arguments=how,
            steps=total,
            trainer={
                "callbacks": [Watch(lambda phase, share: progress(phase, share / 2), order)],
                "eval_dataset": prepared.evaluation,
                "compute_metrics": lambda raw: headline(prepared, raw.predictions),
            },
            evaluation=prepared.evaluation,
        )
        values = _found(spec.pattern, context, prepared.headline)
        write_whole(path, json.dumps(values).encode())
    left = spec.training.model_copy(update={"steps": total - values["steps"], "epochs": None})
    return MethodRun(training=left, **values)


def _found(method: str, context: Context, headline: str) -> dict[str, Any]:
    """The plan that a method finds and what finding it took, as plain values."""
    try:
        applied = parse_method(method).apply(context)
    except (PlanError, UnsupportedModelError) as error:
        raise TrialFailed(str(error)) from None
    every = max(1, len(applied.history) // _POINTS)
    kept = ("step", "loss", "density", "target", "temperature")
    name = f"eval_{headline}"
    return {
        "plan": Plan.of(applied.plan).to_json(),
        "steps": applied.steps,
        "history": [{n: record[n] for n in kept} for record in applied.history[::every]],
        "phases": {phase: m[name] for phase, m in applied.metrics.items() if name in m},
    }
