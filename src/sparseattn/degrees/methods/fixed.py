"""Methods that need nothing but counts: a family of patterns, filled up to the budget."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.degrees.method import Applied, BudgetMethod, Context
from sparseattn.degrees.settings import BUDGET_SPLITS, split_rows
from sparseattn.errors import PlanError, unknown
from sparseattn.words import counted

if TYPE_CHECKING:
    from sparseattn.degrees.texts import Texts
    from sparseattn.pattern import Pattern
    from sparseattn.plan import Plan

#: Training texts that a budget is solved on, at most.
_SAMPLE = 1024

#: Steps of a family that are tried, at most.
_MOST = 8192


@dataclass(frozen=True)
class _Family(BudgetMethod):
    """Patterns in ascending order; two neighbouring ones, split over the heads, meet the budget.

    The heads that get the larger one are spread evenly over layers and heads. The last
    `empty_last_layers` layers keep the lowest one: where a class is read from a global CLS, its row
    is whole, and nothing else of the last layer is read.
    """

    sparsity: float
    globals: tuple[str, ...] | int = ("cls",)
    budget_split: str = "train"
    empty_last_layers: int = 0

    def __post_init__(self) -> None:
        self.check_sparsity()
        if self.budget_split not in BUDGET_SPLITS:
            message = unknown("budget_split", self.budget_split, BUDGET_SPLITS)
            raise PlanError(f"{self.name}(): {message}")
        empty = self.empty_last_layers
        if isinstance(empty, bool) or not isinstance(empty, int) or empty < 0:
            raise PlanError(
                f"{self.name}(): empty_last_layers must be a whole number >= 0; got {empty!r}"
            )

    @abstractmethod
    def step(self, index: int) -> Pattern:
        """The pattern of a step, from the sparsest."""

    def check(self, texts: Texts, tokenizer: Any = None) -> None:  # noqa: ARG002
        """See `Method.check`: the model needs more layers than stay empty."""
        from sparseattn.degrees.texts import shape_of

        self._check_layers(len(shape_of(texts.model)[0]))

    def _check_layers(self, count: int) -> None:
        if self.empty_last_layers >= count:
            raise PlanError(
                f"{self}: empty_last_layers={self.empty_last_layers}, and the model has "
                f"{counted(count, 'layer')}"
            )

    def apply(self, context: Context) -> Applied:
        data = split_rows(self.budget_split, context.data, context.evaluation)
        return Applied(self.plan(context.model, data, context.collator, context.tokenizer))

    def plan(self, model: Any, data: Any, collator: Any, tokenizer: Any = None) -> Plan:
        """The plan nearest to the sparsity for a model and its texts; see `Context`.

        Raises:
            PlanError: The lowest step allows too much.
        """
        from sparseattn.counting import MeasuredSparsity
        from sparseattn.degrees.discretize import plan_from_heads
        from sparseattn.degrees.texts import Texts, shape_of
        from sparseattn.plan import Plan

        heads, windows = shape_of(model)
        self._check_layers(len(heads))
        tokens = Texts(model, data, collator, _SAMPLE).tokens(Plan.of(self.step(0)), tokenizer)
        empty = self.empty_last_layers
        filled = sum(heads[: len(heads) - empty])
        rest = [self.step(0)] * sum(heads[len(heads) - empty :])

        def split(low: int, larger: int) -> Plan:
            """Some heads have the pattern of the next step, spread evenly."""
            places = {(2 * index + 1) * filled // (2 * larger) for index in range(larger)}
            both = self.step(low), self.step(low + 1)
            return plan_from_heads([both[at in places] for at in range(filled)] + rest, heads)

        def count(plan: Plan) -> float:
            return MeasuredSparsity.of(plan, tokens, heads, windows).sparsity

        def too_dense(plan: Plan) -> bool:
            return count(plan) <= self.sparsity

        highest = count(split(0, 0))
        if self.sparsity > highest + 1e-9:
            raise PlanError(
                f"{self}: these texts reach no more than {int(highest * 1000) / 1000:.3f}"
            )
        last = 1
        while last < _MOST and not too_dense(split(last, 0)):
            last *= 2
        steps = range(last // 2 + 1, last)
        step = last // 2 + bisect_left(steps, True, key=lambda at: too_dense(split(at, 0)))
        larger = bisect_left(range(1, filled), True, key=lambda at: too_dense(split(step, at)))
        near = split(step, larger), split(step, larger + 1)
        return min(near, key=lambda plan: abs(count(plan) - self.sparsity))


@dataclass(frozen=True)
class UniformMethod(_Family):
    """The same radius in every head, or two neighbouring ones split over the heads."""

    name: ClassVar[str] = "uniform"

    def step(self, index: int) -> Pattern:
        from sparseattn.patterns._mix import global_tokens
        from sparseattn.patterns.neighbor import Neighbor

        return reduce(or_, global_tokens(self.globals), Neighbor(index))


@dataclass(frozen=True)
class LongformerMethod(_Family):
    """Longformer's window; with the same global tokens, the same pairs as `uniform`."""

    name: ClassVar[str] = "longformer"
    also_pattern: ClassVar[bool] = True

    def step(self, index: int) -> Pattern:
        from sparseattn.patterns.longformer import Longformer

        return Longformer(index, self.globals)


@dataclass(frozen=True)
class BigBirdMethod(_Family):
    """BigBird's mix, filled up in its own proportions: as many random keys as window tokens.

    BigBird has three blocks of window and three of random keys. From `radius=0` on, random keys are
    added one by one up to the tokens of the window, 2 radius + 1; then the radius grows.
    """

    name: ClassVar[str] = "bigbird"
    also_pattern: ClassVar[bool] = True

    def step(self, index: int) -> Pattern:
        from sparseattn.patterns.bigbird import BigBird

        # 0+0, 0+1, then for each radius r: 2r-1, 2r, 2r+1 random keys, the first with r just grown.
        if index < 2:
            return BigBird(0, index, self.globals)
        radius, more = divmod(index - 2, 3)
        return BigBird(radius + 1, 2 * radius + 1 + more, self.globals)
