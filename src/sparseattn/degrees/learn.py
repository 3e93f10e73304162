"""Learning degrees for a target sparsity, or several.

The training steps are shared out: a search phase trains weights and distributions of degrees
together, then the distributions become a plan, and the remaining steps train under that plan.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.discretize import Discretized, discretize
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.result import Learned
from sparseattn.degrees.search import Budget, Schedule, add_degrees_group, searching
from sparseattn.degrees.settings import Settings, split_rows
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError
from sparseattn.models.encoder import encoder_of
from sparseattn.models.masks import check_scores
from sparseattn.models.sparsify import sparsified, sparsify
from sparseattn.plan import Plan
from sparseattn.training.phases import BUDGET, Phase

#: The share of the budget that a search aims at: what is left is for connections that discretizing
#: adds, where it would otherwise have to cut some.
_AIM = 0.97


def learn_degrees(
    model: Any,
    data: Any,
    sparsity: float | Sequence[float],
    *,
    arguments: TrainingArguments | None = None,
    trainer: Mapping[str, Any] | None = None,
    **options: Any,
) -> Learned | Any:
    """Trains a model and finds which connections each of its heads needs, for a target sparsity.

    With several sparsities the search phase goes on from each to the next: what they share is the
    search up to the sparser one. Each later target adds half a search phase of its own.

    Args:
        model: A transformers encoder with a head; it is trained in place and carries the plan
            afterwards. With several sparsities each result has a copy, and the model is that of
            the last.
        data: Tokenised training rows with labels, as `Trainer` takes them.
        sparsity: What the plan is to have on texts such as these, counting everything that is
            allowed, global tokens too; or several.
        arguments: How to train; its steps or epochs are those of both phases together.
        trainer: More for `Trainer`, such as `eval_dataset`, `compute_metrics`, `data_collator` or
            `processing_class`. With `eval_dataset` the model is evaluated after the search phase,
            when its degrees have been made discrete, and at the end.
        **options: See `sparseattn.degrees.settings.Settings`.

    Returns:
        Plan, model, distributions, history and metrics; a list of these where `sparsity` is one.

    Raises:
        PlanError: A sparsity cannot be reached (the message names the highest that can), an option
            is wrong, or there are too few steps.
        UnsupportedModelError: The model's attention cannot be replaced, or takes only a boolean
            mask.
    """
    if arguments is None:
        arguments = TrainingArguments(output_dir="learned", save_strategy="no", report_to=[])
    learner = Learner(model, data, arguments, dict(trainer or {}), Settings.of(options))
    if isinstance(sparsity, int | float | str):
        return learner.learn([sparsity])[0]  # refused, if a string
    return learner.learn(sparsity)


class Learner:
    """A model whose degrees are being learned; see `learn_degrees`.

    Args:
        model: The model; it is trained in place.
        data: Training rows.
        arguments: How it is trained.
        trainer: More for `Trainer`.
        settings: How its degrees are learned.
        tokenizer: `trainer["processing_class"]` by default.
        evaluation: Rows for `settings.budget_split`; `trainer["eval_dataset"]` by default.

    Attributes:
        texts: Those that the budget is counted over.
        history: See `sparseattn.degrees.search.Budget`; over all search phases.
        metrics: Of the last evaluations: `search`, `discretized`, `final`, and `dense` of a
            baseline.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        arguments: TrainingArguments,
        trainer: dict[str, Any],
        settings: Settings,
        tokenizer: Any = None,
        evaluation: Any = None,
    ) -> None:
        if arguments.label_smoothing_factor:
            raise PlanError("label smoothing takes the loss away from the model; set it to 0")
        check_scores(encoder_of(model).config)
        self.model, self.data, self.settings = model, data, settings
        self.arguments, self.trainer = arguments, trainer
        self.tokenizer = tokenizer or trainer.get("processing_class")
        padding = self.tokenizer is not None and DataCollatorWithPadding(self.tokenizer)
        self.collator: Any = trainer.get("data_collator") or padding or default_data_collator
        held_out = trainer.get("eval_dataset") if evaluation is None else evaluation
        counted = split_rows(settings.budget_split, data, held_out)
        self.texts = Texts(model, counted, self.collator)
        self.costs = costs = settings.costs(self.texts, self.tokenizer)
        self.degrees = Degrees(
            costs.candidates, costs.heads, costs.windows, costs.dense, settings.granularity
        )
        self.history: list[dict[str, float]] = []
        self.metrics: dict[str, dict[str, float]] = {}

    def check(self, targets: Sequence[float]) -> None:
        """Raises a PlanError for no target, one that cannot be reached, or too few steps."""
        if not targets:
            raise PlanError("degrees are learned for a sparsity, or several; got none")
        for target in targets:
            self.costs.check(target)
        self.search_steps(steps_of(self.arguments, len(self.data)))

    def learn(
        self,
        targets: Sequence[float],
        dense_baseline: bool = False,
        adjust: Callable[[Learner], float] | None = None,
    ) -> list[Learned]:
        """Goes through all phases for each target, the densest first.

        Args:
            targets: Sparsities.
            dense_baseline: Whether the model is trained without a plan, too, for as many steps.
            adjust: Called after a search phase: the sparsity that its plan is to have, instead of
                the target.
        """
        self.check(targets)
        targets = sorted(set(targets))
        total = steps_of(self.arguments, len(self.data))
        steps = self.search_steps(total)
        if dense_baseline:
            self._train_dense(total)
        results = []
        for index, target in enumerate(targets):
            self.search(target, steps if index == 0 else max(1, steps // 2))
            more = index < len(targets) - 1
            before = copy.deepcopy(self.model.state_dict()) if more else {}
            result = self.finetune(adjust(self) if adjust else target, total - steps)
            if more:
                result.model = copy.deepcopy(self.model)
                self.model.load_state_dict(before)
            results.append(result)
        return results

    def search_steps(self, total: int) -> int:
        """Steps of the search phase, out of so many; an error if a phase is left without any."""
        steps = round(total * self.settings.search_steps)
        if not 0 < steps < total:
            raise PlanError(
                f"{total} training steps cannot be shared out between a search phase and a "
                f"fine-tune (search_steps={self.settings.search_steps})"
            )
        return steps

    def search(self, sparsity: float, steps: int) -> None:
        """Trains weights and distributions together; goes on from an earlier search phase."""
        self.costs.check(sparsity)
        phase = Phase(self.arguments, f"search-{sparsity:g}", [BUDGET])
        if (record := phase.done(self.model)) is not None:
            self._restore(record)
            return
        budget = self._start_search(sparsity, steps)
        with searching(self.model, self.degrees, self.tokenizer):
            trainer = self._trainer(phase.arguments, steps, [budget])
            add_degrees_group(trainer, self.degrees, self.settings.learning_rate)
            hook = self.model.register_forward_hook(budget.add, with_kwargs=True)
            try:
                phase.train(trainer)
            finally:
                hook.remove()
            self._evaluate("search", trainer)
        begun = len(self.history)
        self.history += [{**entry, "step": entry["step"] + begun} for entry in budget.history]
        phase.record(trainer, self._state())

    def _start_search(self, sparsity: float, steps: int) -> Budget:
        settings = self.settings
        # A later phase stays cold: heating up would spread distributions that have settled.
        start = settings.temperature_end if self.history else settings.temperature_start
        density = float(self.costs.density(self.degrees.log_chances()).detach())
        least = 1 - self.costs.highest
        goal = least + _AIM * (1 - sparsity - least)
        schedule = Schedule(steps, settings.warmup, density, goal, start, settings.temperature_end)
        return Budget(self.degrees, self.costs, schedule, settings.learning_rate)

    def discretize(self, sparsity: float) -> Discretized:
        """A plan that meets a sparsity, from the distributions as they are.

        The plan nearest to the soft masks: a pair is worth the chance that it is allowed, so that
        a head is worth what the search spends on it.
        """
        with torch.no_grad():
            allowed = self.costs.allowed(self.degrees.log_chances()).cpu().double()
        return discretize(allowed * self.costs.shares[:, None, :], self.costs, sparsity)

    def evaluate_plan(self, plan: Plan) -> None:
        """Measures the model under a plan, before any training with it."""
        if self.trainer.get("eval_dataset") is not None:
            with sparsified(self.model, plan, tokenizer=self.tokenizer):
                self._evaluate("discretized", self._trainer(self.arguments, 1))

    def finetune(self, sparsity: float, steps: int) -> Learned:
        """Makes the degrees discrete, trains under the plan, and leaves the model with it."""
        discretized = self.discretize(sparsity)
        sparsify(self.model, discretized.plan, tokenizer=self.tokenizer)
        # Another order of the data than in the search phase.
        self._train(f"finetune-{sparsity:g}", steps, ("discretized", "final"), shift=1)
        return self._result(sparsity, discretized)

    def _train_dense(self, steps: int) -> None:
        """Trains the model without a plan, for comparison, and gives it its weights back."""
        before = copy.deepcopy(self.model.state_dict())
        self._train("dense", steps, (None, "dense"))
        self.model.load_state_dict(before)

    def _train(
        self, name: str, steps: int, evaluations: tuple[str | None, str], shift: int = 0
    ) -> None:
        """Trains the model as it is, evaluated before and afterwards; or takes up where that is."""
        phase = Phase(self.arguments, name)
        if (record := phase.done(self.model)) is not None:
            self._restore(record)
            return
        trainer = self._trainer(phase.arguments, steps, shift=shift)
        before, after = evaluations
        if before:
            self._evaluate(before, trainer)
        phase.train(trainer)
        self._evaluate(after, trainer)
        phase.record(trainer, self._state())

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

    def _result(self, sparsity: float, discretized: Discretized) -> Learned:
        """Counts a plan on evaluation texts, or else training texts, and sums up."""
        held_out, costs = self.trainer.get("eval_dataset"), self.costs
        data, split = (self.data, "training") if held_out is None else (held_out, "evaluation")
        tokens = Texts(self.model, data, self.collator).tokens(discretized.plan, self.tokenizer)
        return Learned(
            plan=discretized.plan,
            model=self.model,
            target_sparsity=sparsity,
            discretized=discretized,
            measured=MeasuredSparsity.of(discretized.plan, tokens, costs.heads, costs.windows),
            split=split,
            budget_split=self.settings.budget_split,
            chances=self.degrees.chances(),
            history=list(self.history),
            metrics=dict(self.metrics),
        )

    def _trainer(
        self,
        arguments: TrainingArguments,
        steps: int,
        callbacks: Sequence[Any] = (),
        shift: int = 0,
    ) -> Trainer:
        arguments = copy.copy(arguments)
        arguments.max_steps = steps
        arguments.seed += shift
        arguments.data_seed = None if arguments.data_seed is None else arguments.data_seed + shift
        more = {**self.trainer, "callbacks": [*self.trainer.get("callbacks", ()), *callbacks]}
        more["data_collator"] = self.collator
        trainer = Trainer(self.model, arguments, train_dataset=self.data, **more)
        # The Trainer takes `**kwargs` in a forward for a promise to scale the loss for accumulated
        # batches, which encoders do not keep.
        trainer.model_accepts_loss_kwargs = False
        if arguments.disable_tqdm:
            trainer.remove_callback(PrinterCallback)
        return trainer

    def _evaluate(self, phase: str, trainer: Trainer) -> None:
        if trainer.eval_dataset is None:
            self.metrics[phase] = {}
            return
        # With length-grouped batches transformers would shuffle what is evaluated, too.
        grouped = trainer.args.train_sampling_strategy
        trainer.args.train_sampling_strategy = "random"
        try:
            self.metrics[phase] = _evaluated(trainer)
        finally:
            trainer.args.train_sampling_strategy = grouped


def _evaluated(trainer: Any) -> dict[str, float]:
    """`Trainer.evaluate`, with metrics where examples have no labels, too: questions have none."""
    rows, metrics = trainer.eval_dataset, trainer.compute_metrics
    if metrics is None or isinstance(rows, Mapping) or {*trainer.label_names} & {*rows[0]}:
        return dict(trainer.evaluate())
    output = trainer.predict(rows, metric_key_prefix="eval")
    nothing: Any = None
    found = metrics(EvalPrediction(output.predictions, nothing))
    return {**output.metrics, **{f"eval_{name}": value for name, value in found.items()}}


def steps_of(arguments: TrainingArguments, examples: int) -> int:
    """Optimiser steps that a trainer takes; it steps at the end of an epoch in any case."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = math.ceil(examples / (arguments.train_batch_size * arguments.world_size))
    each: int = math.ceil(batches / arguments.gradient_accumulation_steps)
    return math.ceil(float(arguments.num_train_epochs) * each)
