"""Methods that look at the model: calibrated and learned degrees, and the shuffled control."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparseattn.degrees.method import Applied, Context, Method, Spending, check_sparsity
from sparseattn.errors import PlanError
from sparseattn.selection import Selection

if TYPE_CHECKING:
    from sparseattn.degrees.settings import Settings
    from sparseattn.degrees.texts import Texts
    from sparseattn.pattern import Pattern
    from sparseattn.plan import Plan


class _Found(Spending):
    """A method that finds degrees on texts; its fields are `Settings` and a sparsity."""

    dense: Selection

    def __post_init__(self) -> None:
        """Checks the sparsity and the options."""
        check_sparsity(self.sparsity)
        # Frozen: one spelling for layers that are the same.
        object.__setattr__(self, "dense", _settings(self).dense)

    def check(self, texts: Texts, tokenizer: Any = None) -> None:
        """See `Method.check`."""
        _, costs = _settings(self).counted(texts, tokenizer)
        try:
            costs.check(self.sparsity)
        except PlanError as error:
            raise PlanError(f"{self}: {error}") from None


@dataclass(frozen=True)
class CalibratedMethod(_Found):
    """Degrees that keep the most of what the pretrained model does; no training goes into them."""

    sparsity: float
    menu: tuple[float, ...] | None = None
    shared: str = "head"
    form: str = "regular"
    worth: str = "attention"
    elastic: bool = False
    globals: tuple[str, ...] | int = ("cls",)
    over: str = "train"
    dense: Selection = ""
    largest: int | None = None

    name: ClassVar[str] = "calibrated"

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`."""
        from sparseattn.degrees.calibrate import calibrated

        settings = _settings(self, context.seed)
        data, collator = context.data, context.collator
        found = calibrated(
            context.model,
            data,
            collator,
            self.sparsity,
            settings,
            context.tokenizer,
            context.evaluation,
        )
        return Applied(found.plan)


@dataclass(frozen=True)
class LearnedMethod(_Found):
    """Degrees that are learned while the model trains; see `sparseattn.degrees.settings`."""

    sparsity: float
    menu: tuple[float, ...] | None = None
    shared: str = "head"
    form: str = "regular"
    elastic: bool = False
    globals: tuple[str, ...] | int = ("cls",)
    start: str = "dense"
    worth: str = "attention"
    soft: float = 0.5
    learning_rate: float = 0.1
    warmup: float = 0.4
    cold: float = 0.2
    over: str = "train"
    dense: Selection = ""
    largest: int | None = None

    name: ClassVar[str] = "learned"

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`: trains the model through the soft phase."""
        from sparseattn.degrees.learner import Learner

        settings = _settings(self, context.seed)
        trainer = {**context.trainer, "data_collator": context.collator}
        learner = Learner(
            context.model,
            context.data,
            context.arguments,
            trainer,
            settings,
            context.tokenizer,
            context.evaluation,
        )
        steps = learner.soft_steps(context.steps)
        learner.soft_phase(self.sparsity, steps)
        plan, _ = learner.harden(self.sparsity)
        learner.evaluate_hard(plan)
        return Applied(plan, steps, tuple(learner.history), learner.metrics)


@dataclass(frozen=True)
class _Control(Method):
    """A method that takes the plan of another one, its arm."""

    arm: Method

    def __post_init__(self) -> None:
        """Checks the arm."""
        if not isinstance(self.arm, Method):
            raise PlanError(f"{self.name}() takes a method such as learned(...), got {self.arm!r}")

    @property
    def stated(self) -> float:
        """See `Method.stated`."""
        return self.arm.stated

    @property
    def global_tokens(self) -> tuple[str, ...] | int:
        """See `Method.global_tokens`."""
        return self.arm.global_tokens

    @property
    def counted_over(self) -> str:
        """See `Method.counted_over`."""
        return self.arm.counted_over

    def check(self, texts: Texts, tokenizer: Any = None) -> None:
        """See `Method.check`."""
        self.arm.check(texts, tokenizer)

    @property
    def passes(self) -> float:
        """See `Method.passes`: what the arm trains to find its plan comes on top."""
        return 1.0 + _soft(self.arm)


@dataclass(frozen=True)
class RestartedMethod(_Control):
    """The plan of another method, on the model as it was before that method trained it.

    The control that separates a learned plan from how it was come by: the model trains under it
    from the first step, as it does under a fixed plan, and never sees a denser one.
    """

    name: ClassVar[str] = "restarted"

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`."""
        return Applied(_plan_of_arm(self.arm, context))


@dataclass(frozen=True)
class ShuffledMethod(_Control):
    """The degrees of another method, dealt out anew over layers and heads, or within each layer.

    The control that separates which heads get which degrees from which degrees there are. The model
    starts over, as with `restarted`. Over the whole model a layer's sparsity changes too, and a
    dense head may land where nothing is read from it, as in the last layer of a classifier; within
    a layer it does not.
    """

    seed: int = 0
    within: str = "model"

    name: ClassVar[str] = "shuffled"

    def __post_init__(self) -> None:
        """Checks the arm."""
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise PlanError(f"shuffled(): seed {self.seed!r} must be a whole number >= 0")
        if self.within not in ("model", "layer"):
            raise PlanError(f"shuffled(): within {self.within!r}: choose from: model, layer")

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`."""
        from sparseattn.degrees.discretize import dealt
        from sparseattn.degrees.texts import state_of
        from sparseattn.models.sparsify import sparsified

        plan = _plan_of_arm(self.arm, context)
        with sparsified(context.model, "full()"):
            heads = state_of(context.model).heads
        rows: list[list[Pattern]] = []
        for layer, groups in enumerate(plan.resolve(heads)):
            by_head = {head: pattern for members, pattern in groups for head in members}
            rows.append([by_head[head] for head in range(heads[layer])])
        if self.within == "model":
            rows = [[pattern for row in rows for pattern in row]]
        draw = np.random.default_rng(self.seed)
        dealt_out = [row[index] for row in rows for index in draw.permutation(len(row))]
        return Applied(dealt(dealt_out, heads))


def _soft(arm: Method) -> float:
    """The share of a training that a method takes to find its plan."""
    return arm.soft if isinstance(arm, LearnedMethod) else arm.passes - 1


def _plan_of_arm(arm: Method, context: Context) -> Plan:
    """What another method finds on a copy of the model."""
    callbacks = {n: v for n, v in context.trainer.items() if n == "callbacks"}
    spare = copy.deepcopy(context.model)
    return arm.apply(replace(context, model=spare, trainer=callbacks)).plan


def _settings(method: _Found, seed: int = 0) -> Settings:
    """Its fields as settings.

    Raises:
        PlanError: One is not possible; the message begins with the method's name.
    """
    from sparseattn.degrees.settings import Settings

    options = {f.name: getattr(method, f.name) for f in fields(method) if f.name != "sparsity"}
    try:
        return Settings.of({**options, "seed": seed})
    except PlanError as error:
        raise PlanError(f"{method.name}(): {error}") from None
