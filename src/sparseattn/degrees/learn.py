"""Learning degrees: a soft phase, hardening, and a fine-tune with the hard plan."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from sparseattn.degrees.budget import DualAscent, Schedule
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.harden import irregular_plan, regular_choice, regular_plan
from sparseattn.degrees.menu import Menu
from sparseattn.degrees.phase import Budget, add_degrees_group, soft
from sparseattn.degrees.realised import Realised
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError
from sparseattn.models.attach import attached, sparsified, sparsify
from sparseattn.plan import Plan

__all__ = ["Learner", "learn_degrees"]


@dataclass(eq=False)
class Learner:
    """A model whose degrees are being learned.

    Args:
        model: The model; it is trained in place.
        arguments: How it is trained.
        data: Training rows.
        collator: Joins rows.
        settings: How its degrees are learned.
    """

    model: Any
    arguments: TrainingArguments
    data: Any
    collator: Any
    settings: Settings
    menu: Menu = field(init=False)
    costs: Costs = field(init=False)
    degrees: Degrees = field(init=False)

    def __post_init__(self) -> None:
        """Counts the training texts and sets the distributions to their start."""
        settings = self.settings
        texts = Texts(self.model, self.data, self.collator, settings.sample)
        first = Menu((0, 1), globals=settings.globals)
        with sparsified(self.model, Plan.of(first.pattern(0))):
            state = attached(self.model)
            heads, windows = state.heads, state.windows
            batches = texts.tokens(state.record.plan)
        longest = max(int(tokens.lengths.max()) for tokens in batches)
        self.menu = settings.menu_for(longest)
        dense = settings.dense_layers(len(heads))
        self.costs = Costs.of(self.menu, batches, heads, windows, dense)
        self.degrees = Degrees(self.menu, heads, windows, dense, settings.shared)
        with torch.no_grad():
            self.degrees.theta[..., -1] = 4.0
        self.history = []

    def soft_phase(self, sparsity: float, steps: int, trainer_options={}) -> None:
        settings = self.settings
        start = float(self.costs.density(self.degrees.chances()).detach())
        schedule = Schedule(
            steps, settings.warmup, start, 1 - sparsity, settings.hot, settings.cold
        )
        budget = Budget(self.degrees, self.costs, schedule, DualAscent(settings.ascent))
        arguments = copy.copy(self.arguments)
        arguments.max_steps = steps
        arguments.lr_scheduler_type = "constant_with_warmup"
        with soft(self.model, self.degrees):
            trainer = Trainer(
                self.model, arguments, self.collator, self.data, callbacks=[budget], **trainer_options
            )
            trainer.remove_callback(PrinterCallback)
            add_degrees_group(trainer, self.degrees, settings.learning_rate)
            hook = self.model.register_forward_hook(budget.add, with_kwargs=True)
            try:
                trainer.train()
            finally:
                hook.remove()
            self.metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
        self.history += budget.history

    def harden(self, sparsity):
        s = self.settings
        if s.form == "irregular":
            return irregular_plan(self.degrees.log_chances(), self.menu, self.costs, sparsity, s.seed)
        values = self.degrees.chances().cumsum(-1)
        self.choice = regular_choice(values, self.costs, sparsity)
        return regular_plan(self.choice, self.menu, self.costs)
