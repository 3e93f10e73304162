"""Controls: what another method finds, with one thing about it changed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparseattn.degrees.method import Applied, BudgetMethod, Context, Method
from sparseattn.degrees.methods.learned import LearnedMethod
from sparseattn.errors import PlanError, unknown

if TYPE_CHECKING:
    from sparseattn.degrees.texts import Texts
    from sparseattn.pattern import Pattern
    from sparseattn.plan import Plan

_WITHIN = ("model", "layer")


@dataclass(frozen=True)
class _Control(Method):
    """A method that takes the plan of another one, its arm."""

    arm: Method

    def __post_init__(self) -> None:
        if not isinstance(self.arm, Method):
            raise PlanError(f"{self.name}() takes a method such as learned(...), got {self.arm!r}")

    @property
    def base(self) -> BudgetMethod:
        return self.arm.base

    @property
    def needs(self) -> frozenset[str]:
        return self.arm.needs

    def check(self, texts: Texts, tokenizer: Any = None) -> None:
        self.arm.check(texts, tokenizer)

    @property
    def passes(self) -> float:
        """See `Method.passes`: what the arm trains to find its plan comes on top."""
        arm = self.arm
        return 1.0 + (arm.search_steps if isinstance(arm, LearnedMethod) else arm.passes - 1)

    def plan_of_arm(self, context: Context) -> Plan:
        """What the arm finds on a copy of the model."""
        callbacks = {name: value for name, value in context.trainer.items() if name == "callbacks"}
        model = copy.deepcopy(context.model)
        return self.arm.apply(replace(context, model=model, trainer=callbacks)).plan


@dataclass(frozen=True)
class RetrainedMethod(_Control):
    """The plan of another method, on the model as it was before that method trained it.

    The control that separates a learned plan from how it was come by: the model trains under it
    from the first step, as it does under a fixed plan, and never sees a denser one.
    """

    name: ClassVar[str] = "retrained"

    def apply(self, context: Context) -> Applied:
        return Applied(self.plan_of_arm(context))


@dataclass(frozen=True)
class ShuffledMethod(_Control):
    """The degrees of another method, shuffled over layers and heads, or within each layer.

    The control that separates which heads get which degrees from which degrees there are. The model
    starts over, as with `retrained`. Over the whole model a layer's sparsity changes too, and a
    dense head may land where nothing is read from it, as in the last layer of a classifier; within
    a layer it does not.
    """

    seed: int = 0
    within: str = "model"

    name: ClassVar[str] = "shuffled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise PlanError(f"shuffled(): seed {self.seed!r} must be a whole number >= 0")
        if self.within not in _WITHIN:
            raise PlanError(f"shuffled(): {unknown('within', self.within, _WITHIN)}")

    def apply(self, context: Context) -> Applied:
        from sparseattn.degrees.discretize import plan_from_heads
        from sparseattn.degrees.texts import shape_of

        plan = self.plan_of_arm(context)
        heads, _ = shape_of(context.model)
        rows: list[list[Pattern]] = []
        for layer, groups in enumerate(plan.resolve(heads)):
            by_head = {head: pattern for members, pattern in groups for head in members}
            rows.append([by_head[head] for head in range(heads[layer])])
        if self.within == "model":
            rows = [[pattern for row in rows for pattern in row]]
        draw = np.random.default_rng(self.seed)
        shuffled = [row[index] for row in rows for index in draw.permutation(len(row))]
        return Applied(plan_from_heads(shuffled, heads))
