"""The search phase: training a model and its degrees together, under a budget.

Composed of what `transformers.Trainer` offers: the degrees are a module of the model, with a
parameter group of their own; a callback moves the target and the temperature; a forward hook adds
the budget's term to the loss. (Not `compute_loss_func`: the Trainer then takes the labels away from
the model, and each task's loss would have to be written again.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from sparseattn.degrees.cost import Costs
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.texts import state_of
from sparseattn.errors import PlanError
from sparseattn.files import write_whole
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import Plan
from sparseattn.training.phases import BUDGET

#: Name of the degrees among the modules of a model that learns them.
_MODULE = "sparseattn_degrees"

#: Adam's averages for the degrees. They must turn round within a few steps of reaching the budget:
#: with the usual (0.9, 0.999) the density swings past it by 3 to 15 points.
_BETAS = (0.5, 0.95)


@dataclass
class DualAscent:
    """A Lagrangian whose weights grow for as long as the budget is missed.

    `lambda1 g + lambda2 g^2` for the gap `g = log(c / c*)` of a density c and its target c*; both
    weights take gradient ascent steps. Lambda1 may become negative, which pulls a density up that
    is too low. Unlike in the sources the gap is that of logarithms: a density of 0.01 is far from a
    target of 0.05, and a difference of 0.04 would say too little of it against the task's loss. And
    lambda2 starts above 0: an integral alone overshoots and swings, because Adam moves the
    distributions at one speed however large their gradient; a term in proportion to the gap turns
    them round in time.

    Source: Wang, Wohlwend and Lei, arXiv 1910.04732, section 3.3; CoFi, arXiv 2204.00408.

    Attributes:
        lambda1: Weight of the linear term.
        lambda2: Weight of the quadratic term.
        rate: Step size of the ascent.
    """

    lambda1: float = 0.0
    lambda2: float = 0.5
    rate: float = 0.05

    def penalty(self, density: Tensor, target: float) -> Tensor:
        """What is added to the loss: a scalar."""
        gap = density.log() - math.log(target)
        return self.lambda1 * gap + self.lambda2 * gap**2

    def ascend(self, density: float, target: float) -> None:
        """Takes a step, after an optimiser step has been taken at this density."""
        gap = math.log(density / target)
        self.lambda1 += self.rate * gap
        self.lambda2 += self.rate * gap**2


@dataclass(frozen=True)
class Schedule:
    """The target and the temperature over the steps of a search phase.

    Attributes:
        steps: Steps of the phase.
        warmup: Fraction of them over which the target goes from the start to the goal.
        start: Density that the target starts from.
        goal: Density that it ends at.
        temperature_start: First temperature.
        temperature_end: Last temperature; it falls in a geometric series after the warm-up.
    """

    steps: int
    warmup: float
    start: float
    goal: float
    temperature_start: float
    temperature_end: float

    def target(self, step: int) -> float:
        """The density to aim for at a step, counted from 0."""
        done = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.start + (self.goal - self.start) * done

    def temperature(self, step: int) -> float:
        """The temperature at a step, counted from 0."""
        begin = self.warmup * self.steps
        done = min(1.0, max(0.0, (step - begin) / max(1.0, self.steps - 1 - begin)))
        fall = self.temperature_end / self.temperature_start
        return float(self.temperature_start * fall**done)


@contextmanager
def searching(model: nn.Module, degrees: Degrees, tokenizer: Any = None) -> Iterator[nn.Module]:
    """Runs a model with the soft mask of its degrees, a module of it meanwhile.

    Afterwards it is as it was.

    Raises:
        UnsupportedModelError: The model's attention cannot be replaced.
    """
    with sparsified(model, Plan.of(degrees.candidates.needed), tokenizer=tokenizer):
        state_of(model).compiler = degrees.soft_plan
        setattr(model, _MODULE, degrees)
        try:
            yield model
        finally:
            delattr(model, _MODULE)


class Budget(TrainerCallback):
    """Moves target and temperature, adds the budget's term, and takes the dual steps.

    Costs are counted over a sample of the texts, the same on every process, so that data-parallel
    runs agree without talking about it.

    Attributes:
        history: For each step: `step`, `target`, `density`, `temperature`, `lambda1`, `lambda2`,
            and `loss`, that of the task alone, averaged over the batches of the step.
    """

    def __init__(
        self, degrees: Degrees, costs: Costs, schedule: Schedule, learning_rate: float
    ) -> None:
        self.degrees, self.costs, self.schedule = degrees, costs, schedule
        self.learning_rate = learning_rate
        self.ascent = DualAscent()
        self.history: list[dict[str, float]] = []
        self._losses: list[Tensor] = []
        self._set_step(0)

    def _set_step(self, step: int) -> None:
        self.target = self.schedule.target(step)
        self.degrees.temperature = self.schedule.temperature(step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Puts the degrees and the budget beside a checkpoint."""
        if not state.is_world_process_zero:
            return
        values = {
            "theta": self.degrees.theta.tolist(),
            "lambda1": self.ascent.lambda1,
            "lambda2": self.ascent.lambda2,
            "start": self.schedule.start,
            "history": self.history,
        }
        write_whole(_beside(args, state), json.dumps(values))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Takes up from the checkpoint that training resumes from."""
        if not state.global_step:
            return
        values = json.loads(_beside(args, state).read_text(encoding="utf-8"))
        with torch.no_grad():
            self.degrees.theta.copy_(torch.tensor(values["theta"]))
        self.ascent.lambda1, self.ascent.lambda2 = values["lambda1"], values["lambda2"]
        self.schedule = replace(self.schedule, start=values["start"])
        self.history = values["history"]

    def density(self) -> Tensor:
        """The expected density, with gradient."""
        return self.costs.density(self.degrees.log_chances())

    def add(self, module: nn.Module, _args: Any, _kwargs: Any, outputs: Any) -> Any:
        """Forward hook of the model: adds the budget's term to the loss while it trains.

        Raises:
            PlanError: The model returned no loss.
        """
        if not module.training:
            return outputs
        loss = outputs.get("loss") if hasattr(outputs, "get") else None
        if loss is None:
            raise PlanError(f"{type(module).__name__} returned no loss; the data need labels")
        self._losses.append(loss.detach())
        outputs["loss"] = loss + self.ascent.penalty(self.density(), self.target)
        return outputs

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Moves the target and the temperature; the degrees keep their learning rate."""
        self._set_step(state.global_step)
        for group in kwargs["optimizer"].param_groups:
            if any(parameter is self.degrees.theta for parameter in group["params"]):
                group["lr"] = self.learning_rate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Takes a dual step and records."""
        density = float(self.density().detach())
        self.history.append(
            {
                "step": state.global_step,
                "loss": float(sum(self._losses)) / max(1, len(self._losses)),
                "density": density,
                "target": self.target,
                "temperature": self.degrees.temperature,
                "lambda1": self.ascent.lambda1,
                "lambda2": self.ascent.lambda2,
            }
        )
        self._losses.clear()
        self.ascent.ascend(density, self.target)


def _beside(args: Any, state: Any) -> Path:
    """The file of the budget beside a checkpoint."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / BUDGET


def add_degrees_group(trainer: Trainer, degrees: Degrees, learning_rate: float) -> None:
    """Gives a trainer's optimiser a group for the degrees: own learning rate, no weight decay.

    The group does not follow the trainer's schedule: `Budget` keeps its rate where it is.
    """
    degrees.theta.requires_grad_(False)  # so that the trainer's own groups leave it out
    optimizer = trainer.create_optimizer()
    degrees.theta.requires_grad_(True)
    group: dict[str, Any] = {"params": [degrees.theta], "lr": learning_rate, "weight_decay": 0.0}
    if "betas" in optimizer.defaults:
        group["betas"] = _BETAS
    optimizer.add_param_group(group)
