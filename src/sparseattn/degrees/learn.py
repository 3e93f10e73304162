"""Learning degrees for a sparsity that is stated, or several."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

from transformers import TrainingArguments

from sparseattn.degrees.learner import Learner
from sparseattn.degrees.result import Learned
from sparseattn.degrees.settings import Settings
from sparseattn.errors import PlanError

__all__ = ["learn_degrees", "steps_of"]


@overload
def learn_degrees(
    model: Any,
    data: Any,
    sparsity: float,
    *,
    arguments: TrainingArguments | None = None,
    trainer: Mapping[str, Any] | None = None,
    **options: Any,
) -> Learned: ...


@overload
def learn_degrees(
    model: Any,
    data: Any,
    sparsity: Sequence[float],
    *,
    arguments: TrainingArguments | None = None,
    trainer: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Learned]: ...


def learn_degrees(
    model: Any,
    data: Any,
    sparsity: float | Sequence[float],
    *,
    arguments: TrainingArguments | None = None,
    trainer: Mapping[str, Any] | None = None,
    **options: Any,
) -> Learned | list[Learned]:
    """Trains a model and finds how far each of its heads needs to see, for a sparsity you state.

    The training steps are shared out: a soft phase learns weights and distributions of radii
    together, then the distributions become a hard plan, and the rest trains under that plan.

    With several sparsities the soft phase goes on from each to the next: what they share is the
    soft training up to the sparser one. Each later target adds half a soft phase of its own.

    Args:
        model: A transformers encoder with a head; it is trained in place and carries the plan
            afterwards. With several sparsities each result has a copy, and the model is that of
            the last.
        data: Tokenised training rows with labels, as `Trainer` takes them.
        sparsity: What the plan is to have on texts such as these, counting everything that is
            allowed, global tokens too; or several.
        arguments: How to train; its steps or epochs are those of both phases together.
        trainer: More for `Trainer`, such as `eval_dataset`, `compute_metrics`, `data_collator` or
            `processing_class`. With `eval_dataset` the model is evaluated before hardening, after
            it, and at the end.
        **options: See `sparseattn.degrees.settings.Settings`.

    Returns:
        Plan, model, distributions, history and metrics; a list where `sparsity` is one.

    Raises:
        PlanError: A sparsity cannot be reached (the message names the highest that can), an option
            is wrong, or there are too few steps.
        UnsupportedModelError: The model's attention cannot be replaced or takes only a hard mask.
    """
    made = arguments or TrainingArguments(output_dir="learned", save_strategy="no", report_to=[])
    learner = Learner(model, data, made, dict(trainer or {}), Settings.of(options))
    single = isinstance(sparsity, int | float)
    targets = [sparsity] if isinstance(sparsity, int | float) else sorted(set(sparsity))
    if not targets:
        raise PlanError("a sparsity, or several, is what degrees are learned for; got none")
    for target in targets:
        learner.costs.check(target)
    total = steps_of(made, len(data))
    steps = learner.soft_steps(total)
    results = []
    for index, target in enumerate(targets):
        learner.soft_phase(target, steps if index == 0 else max(1, steps // 2))
        before = None if target == targets[-1] else copy.deepcopy(model.state_dict())
        result = learner.finish(target, total - steps)
        if before is not None:
            result.model = copy.deepcopy(model)
            model.load_state_dict(before)
        results.append(result)
    return results[0] if single else results


def steps_of(arguments: TrainingArguments, examples: int) -> int:
    """Optimiser steps that a trainer takes; it steps at the end of an epoch in any case."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = math.ceil(examples / (arguments.train_batch_size * arguments.world_size))
    each: int = math.ceil(batches / arguments.gradient_accumulation_steps)
    return math.ceil(float(arguments.num_train_epochs) * each)
