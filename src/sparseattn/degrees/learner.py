"""A model whose degrees are being learned: a soft phase, hardening, training with the hard plan."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

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
from sparseattn.degrees.discretize import irregular_plan, regular_choice, regular_plan
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.result import Learned
from sparseattn.degrees.search import Budget, add_degrees_group, soft
from sparseattn.degrees.settings import Settings, rows_over
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError
from sparseattn.models.sparsify import sparsified, sparsify
from sparseattn.plan import Plan
from sparseattn.training.phases import BUDGET, Phase

__all__ = ["Learner"]

#: The logit that the largest radius starts with where learning starts dense: a chance near 0.9.
_DENSE = 4.0
#: Texts that a calibrated start is measured on, at most.
_MEASURED = 256


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
        counted: Evaluation rows, for `settings.over`; `trainer["eval_dataset"]` by default.

    Attributes:
        menu: The radii.
        costs: What each costs, over a sample of the texts that `settings.over` names.
        degrees: The distributions.
        history: See `sparseattn.degrees.search.Budget`; over all soft phases.
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
        counted: Any = None,
    ) -> None:
        if arguments.label_smoothing_factor:
            raise PlanError("label smoothing takes the loss away from the model; set it to 0")
        self.model, self.data, self.settings = model, data, settings
        self.arguments, self.trainer = arguments, trainer
        self.tokenizer = tokenizer or trainer.get("processing_class")
        self.collator = trainer.get("data_collator") or _collator(self.tokenizer)
        evaluation = trainer.get("eval_dataset") if counted is None else counted
        texts = Texts(
            model, rows_over(settings.over, data, evaluation), self.collator, settings.sample
        )
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
        phase = Phase(self.arguments, f"soft-{sparsity:g}", [BUDGET])
        if (record := phase.done(self.model)) is not None:
            self._restore(record)
            return
        if self.settings.start == "calibrated" and not self.history:
            self._calibrate(sparsity)
        budget = self._budget(sparsity, steps)
        with soft(self.model, self.degrees, self.tokenizer):
            trainer = self._trainer(phase.arguments, steps, [budget], "constant_with_warmup")
            add_degrees_group(trainer, self.degrees, self.settings.learning_rate)
            hook = self.model.register_forward_hook(budget.add, with_kwargs=True)
            try:
                phase.train(trainer)
            finally:
                hook.remove()
            self.metrics["soft"] = self._evaluated(trainer)
        begun = len(self.history)
        self.history += [{**entry, "step": entry["step"] + begun} for entry in budget.history]
        phase.record(trainer, self._state())

    def _budget(self, sparsity: float, steps: int) -> Budget:
        settings = self.settings
        start = float(self.costs.density(self.degrees.chances()).detach())
        # A later phase stays cold: heating up would spread distributions that have settled.
        hot = settings.cold if self.history else settings.hot
        schedule = Schedule(steps, settings.warmup, start, 1 - sparsity, hot, settings.cold)
        return Budget(self.degrees, self.costs, schedule, DualAscent(settings.ascent))

    def _state(self) -> dict[str, Any]:
        """What a phase leaves to the next, weights aside, as plain values."""
        return {
            "theta": self.degrees.theta.tolist(),
            "temperature": self.degrees.temperature,
            "history": self.history,
            "metrics": self.metrics,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.degrees.theta.copy_(torch.tensor(state["theta"]))
        self.degrees.temperature = state["temperature"]
        self.history, self.metrics = state["history"], state["metrics"]

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
                trainer = self._trainer(self.arguments, 1)
                self.metrics["hardened"] = self._evaluated(trainer)

    def finish(self, sparsity: float, steps: int) -> Learned:
        """Hardens, trains under the hard plan, and leaves the model with it.

        Args:
            sparsity: What the plan is to have.
            steps: Optimiser steps under the hard plan.
        """
        plan, windows = self.harden(sparsity)
        sparsify(self.model, plan, tokenizer=self.tokenizer)
        phase = Phase(self.arguments, f"tune-{sparsity:g}")
        if (record := phase.done(self.model)) is not None:
            self._restore(record)
        else:
            # Another order of the data than in the soft phase.
            trainer = self._trainer(phase.arguments, steps, shift=1)
            self.metrics["hardened"] = self._evaluated(trainer)
            phase.train(trainer)
            self.metrics["final"] = self._evaluated(trainer)
            phase.record(trainer, self._state())
        return Learned.of(self, sparsity, plan, windows)

    def _trainer(
        self,
        arguments: TrainingArguments,
        steps: int,
        callbacks: Sequence[Any] = (),
        schedule: Any = None,
        shift: int = 0,
    ) -> Trainer:
        arguments = copy.copy(arguments)
        arguments.max_steps = steps
        arguments.lr_scheduler_type = schedule or arguments.lr_scheduler_type
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
