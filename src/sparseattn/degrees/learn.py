"""Learning degrees: a soft phase, hardening, and a fine-tune with the hard plan."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from sparseattn.degrees.budget import DualAscent, Schedule
from sparseattn.degrees.calibrate import distributions, measured
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.harden import irregular_plan, regular_choice, regular_plan
from sparseattn.degrees.phase import Budget, add_degrees_group, soft
from sparseattn.degrees.result import Learned
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError
from sparseattn.models.attach import sparsified, sparsify
from sparseattn.plan import Plan

__all__ = ["Learner", "learn_degrees", "steps_of"]

#: The logit that the largest radius starts with where learning starts dense: a chance near 0.9.
_DENSE = 4.0
#: Texts that a calibrated start is measured on, at most.
_MEASURED = 256


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
    """Optimiser steps that a trainer takes."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = math.ceil(examples / (arguments.train_batch_size * arguments.world_size))
    each: int = max(1, batches // arguments.gradient_accumulation_steps)
    return math.ceil(float(arguments.num_train_epochs) * each)


class Learner:
    """A model whose degrees are being learned.

    Args:
        model: The model; it is trained in place.
        data: Training rows.
        arguments: How it is trained.
        trainer: More for `Trainer`.
        settings: How its degrees are learned.
        tokenizer: Tells which tokens are separators, where they are global;
            `trainer["processing_class"]` by default.

    Attributes:
        menu: The radii.
        costs: What each costs, over a sample of the training texts.
        degrees: The distributions.
        history: See `sparseattn.degrees.phase.Budget`; over all soft phases.
        metrics: Of the last evaluations: `soft`, `hardened`, `final`.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        arguments: TrainingArguments,
        trainer: dict[str, Any],
        settings: Settings,
        tokenizer: Any = None,
    ) -> None:
        if arguments.label_smoothing_factor:
            raise PlanError("label smoothing takes the loss away from the model; set it to 0")
        self.model, self.data, self.settings = model, data, settings
        self.arguments, self.trainer = arguments, trainer
        self.tokenizer = tokenizer or trainer.get("processing_class")
        self.collator = trainer.get("data_collator") or _collator(self.tokenizer)
        texts = Texts(model, data, self.collator, settings.sample)
        self.menu, self.costs = settings.counted(texts, self.tokenizer)
        self.degrees = Degrees(
            self.menu, self.costs.heads, self.costs.windows, self.costs.dense, settings.shared
        )
        with torch.no_grad():
            self.degrees.theta[..., -1] = _DENSE
        self.history: list[dict[str, float]] = []
        self.metrics: dict[str, dict[str, float]] = {}

    def soft_steps(self, total: int) -> int:
        """Steps of the soft phase, out of so many.

        Raises:
            PlanError: That leaves one of the phases without a step.
        """
        steps = round(total * self.settings.soft)
        if not 0 < steps < total:
            raise PlanError(
                f"{total} training steps cannot be shared out between a soft phase and a fine-tune "
                f"(soft={self.settings.soft})"
            )
        return steps

    def soft_phase(self, sparsity: float, steps: int) -> None:
        """Trains weights and distributions together; goes on from an earlier soft phase.

        Args:
            sparsity: Where the budget is to end.
            steps: Optimiser steps.
        """
        self.costs.check(sparsity)
        settings, goal = self.settings, 1 - sparsity
        if settings.start == "calibrated" and not self.history:
            self._calibrate(sparsity)
        start = float(self.costs.density(self.degrees.chances()).detach())
        # A later phase stays cold: heating up would spread distributions that have settled.
        hot = settings.cold if self.history else settings.hot
        schedule = Schedule(steps, settings.warmup, start, goal, hot, settings.cold)
        budget = Budget(self.degrees, self.costs, schedule, DualAscent(settings.ascent))
        with soft(self.model, self.degrees, self.tokenizer):
            trainer = self._trainer(steps, "constant_with_warmup", 0, [budget])
            add_degrees_group(trainer, self.degrees, settings.learning_rate)
            hook = self.model.register_forward_hook(budget.add, with_kwargs=True)
            try:
                trainer.train()
            finally:
                hook.remove()
            self.metrics["soft"] = self._evaluated(trainer)
        begun = len(self.history)
        self.history += [{**entry, "step": entry["step"] + begun} for entry in budget.history]

    def _calibrate(self, sparsity: float) -> None:
        texts = Texts(self.model, self.data, self.collator, _MEASURED)
        kept = measured(texts, self.menu, self.costs.learned, self.settings, self.tokenizer)
        with torch.no_grad():
            theta = distributions(kept, self.costs, sparsity) * self.settings.hot
            self.degrees.theta.copy_(theta)

    def harden(self, sparsity: float) -> tuple[Plan, Plan]:
        """A plan that meets a sparsity, and its windows without the global tokens."""
        settings, menu, costs = self.settings, self.menu, self.costs
        if settings.form == "irregular":
            log_chances = self.degrees.log_chances()
            made = [
                irregular_plan(log_chances, menu, costs, sparsity, settings.seed, only)
                for only in (False, True)
            ]
            return made[0], made[1]
        choice = regular_choice(self.worth, costs, sparsity)
        return regular_plan(choice, menu, costs), regular_plan(choice, menu, costs, True)

    @property
    def worth(self) -> Tensor:
        """The chance that a window drawn from a distribution lies within each radius.

        Shape: [learned layers, heads or 1, entries].
        """
        return self.degrees.chances().cumsum(dim=-1)

    def evaluate_hard(self, plan: Plan) -> None:
        """Measures the model under a hard plan, before any training with it.

        Args:
            plan: The plan.
        """
        if self.trainer.get("eval_dataset") is not None:
            with sparsified(self.model, plan, tokenizer=self.tokenizer):
                trainer = self._trainer(1, self.arguments.lr_scheduler_type, 1, [])
                self.metrics["hardened"] = self._evaluated(trainer)

    def finish(self, sparsity: float, steps: int) -> Learned:
        """Hardens, trains under the hard plan, and leaves the model with it.

        Args:
            sparsity: What the plan is to have.
            steps: Optimiser steps under the hard plan.
        """
        plan, windows = self.harden(sparsity)
        sparsify(self.model, plan, tokenizer=self.tokenizer)
        # Another order of the data than in the soft phase.
        trainer = self._trainer(steps, self.arguments.lr_scheduler_type, 1, [])
        self.metrics["hardened"] = self._evaluated(trainer)
        trainer.train()
        self.metrics["final"] = self._evaluated(trainer)
        return Learned.of(self, sparsity, plan, windows)

    def _trainer(self, steps: int, schedule: Any, shift: int, callbacks: list[Any]) -> Trainer:
        arguments = copy.copy(self.arguments)
        arguments.max_steps, arguments.lr_scheduler_type = steps, schedule
        arguments.seed += shift
        arguments.data_seed = None if arguments.data_seed is None else arguments.data_seed + shift
        more = {**self.trainer, "callbacks": [*self.trainer.get("callbacks", ()), *callbacks]}
        more["data_collator"] = self.collator
        made = Trainer(self.model, arguments, train_dataset=self.data, **more)
        # The Trainer takes `**kwargs` in a forward for a promise to scale the loss for accumulated
        # batches, which encoders do not keep.
        made.model_accepts_loss_kwargs = False
        if arguments.disable_tqdm:
            made.remove_callback(PrinterCallback)
        return made

    def _evaluated(self, trainer: Trainer) -> dict[str, float]:
        if trainer.eval_dataset is None:
            return {}
        # With length-grouped batches transformers would shuffle what is evaluated, too.
        grouped = trainer.args.train_sampling_strategy
        trainer.args.train_sampling_strategy = "random"
        try:
            return dict(trainer.evaluate())
        finally:
            trainer.args.train_sampling_strategy = grouped


def _collator(tokenizer: Any) -> Any:
    return default_data_collator if tokenizer is None else DataCollatorWithPadding(tokenizer)
