"""Methods that need nothing but counts: a family of patterns, filled up to the budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.degrees.method import Applied, Context, Spending, check_sparsity
from sparseattn.degrees.settings import OVER, rows_over
from sparseattn.errors import PlanError, unknown

if TYPE_CHECKING:
    from sparseattn.degrees.texts import Texts
    from sparseattn.pattern import Pattern
    from sparseattn.plan import Plan

#: Training texts that a budget is solved on, at most.
_SAMPLE = 1024

#: Rungs that are looked at, at most: the radius stays below it.
_HIGHEST = 8192


@dataclass(frozen=True)
class _Ladder(Spending):
    """Patterns in ascending order; two neighbouring ones, split over the heads, meet the budget.

    The heads that get the larger one are spread evenly over layers and heads. The last `spare`
    layers keep the lowest one: where a class is read from a global CLS, its row is whole, and
    nothing else of the last layer is read.
    """

    sparsity: float
    globals: tuple[str, ...] | int = ("cls",)
    over: str = "train"
    spare: int = 0

    def __post_init__(self) -> None:
        """Checks the sparsity, and which texts it is to hold over."""
        check_sparsity(self.sparsity)
        if self.over not in OVER:
            raise PlanError(f"{self.name}(): {unknown('over', self.over, OVER)}")
        if isinstance(self.spare, bool) or not isinstance(self.spare, int) or self.spare < 0:
            raise PlanError(f"{self.name}(): spare must be a whole number >= 0; got {self.spare!r}")

    @abstractmethod
    def rung(self, index: int) -> Pattern:
        """The pattern of a step, from the sparsest."""

    def check(self, texts: Texts, tokenizer: Any = None) -> None:  # noqa: ARG002
        """See `Method.check`: the model needs more layers than are spared."""
        from sparseattn.degrees.texts import state_of
        from sparseattn.models.sparsify import sparsified

        if self.spare:
            with sparsified(texts.model, "full()"):
                self._check_spare(state_of(texts.model).heads)

    def _check_spare(self, heads: Sequence[int]) -> None:
        if self.spare >= len(heads):
            raise PlanError(f"{self}: it spares {self.spare} layers, and there are {len(heads)}")

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`."""
        data = rows_over(self.over, context.data, context.evaluation)
        return Applied(self.plan(context.model, data, context.collator, context.tokenizer))

    def plan(self, model: Any, data: Any, collator: Any, tokenizer: Any = None) -> Plan:
        """The plan for a model and its texts; see `Context`.

        Raises:
            PlanError: The sparsity cannot be reached on these texts.
        """
        from sparseattn.counting import MeasuredSparsity
        from sparseattn.degrees.texts import Texts, state_of
        from sparseattn.models.sparsify import sparsified
        from sparseattn.plan import Plan

        texts = Texts(model, data, collator, _SAMPLE)
        tokens = texts.tokens(Plan.of(self.rung(0)), tokenizer)
        with sparsified(model, "full()"):
            state = state_of(model)
            heads, windows = state.heads, state.windows

        def count(plan: Plan) -> float:
            return MeasuredSparsity.of(plan, tokens, heads, windows).sparsity

        return self.solved(count, heads)

    def solved(self, count: Callable[[Plan], float], heads: Sequence[int]) -> Plan:
        """The plan nearest to the sparsity.

        Args:
            count: The sparsity of a plan.
            heads: Heads of each layer.

        Raises:
            PlanError: The lowest rung allows too much.
        """
        self._check_spare(heads)
        highest = count(self._even(0, heads))
        if self.sparsity > highest + 1e-9:
            raise PlanError(
                f"{self}: these texts reach no more than {int(highest * 1000) / 1000:.3f}"
            )
        low, high = 0, 1
        while high < _HIGHEST and count(self._even(high, heads)) > self.sparsity:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if count(self._even(middle, heads)) > self.sparsity:
                low = middle
            else:
                high = middle
        return self._split(low, count, heads)

    def _even(self, index: int, heads: Sequence[int]) -> Plan:
        """The same rung in all heads but those of the spared layers."""
        return self._plan([self.rung(index)] * self._filled(heads), heads)

    def _filled(self, heads: Sequence[int]) -> int:
        """Heads of the layers that are not spared."""
        return sum(heads[: len(heads) - self.spare])

    def _plan(self, flat: list[Pattern], heads: Sequence[int]) -> Plan:
        """The plan of patterns that are given head by head, the spared layers' left out."""
        from sparseattn.degrees.discretize import dealt

        return dealt(flat + [self.rung(0)] * (sum(heads) - len(flat)), heads)

    def _split(self, low: int, count: Callable[[Plan], float], heads: Sequence[int]) -> Plan:
        """The nearest plan between two neighbouring rungs."""
        small, large, total = self.rung(low), self.rung(low + 1), self._filled(heads)

        def made(larger: int) -> Plan:
            places = {(2 * index + 1) * total // (2 * larger) for index in range(larger)}
            return self._plan([large if at in places else small for at in range(total)], heads)

        first, last = 0, total
        while last - first > 1:
            middle = (first + last) // 2
            if count(made(middle)) > self.sparsity:
                first = middle
            else:
                last = middle
        return min((made(first), made(last)), key=lambda p: abs(count(p) - self.sparsity))


@dataclass(frozen=True)
class UniformMethod(_Ladder):
    """The same radius in every head, or two neighbouring ones split over the heads."""

    name: ClassVar[str] = "uniform"

    def rung(self, index: int) -> Pattern:
        """See `_Ladder.rung`."""
        from sparseattn.degrees.candidates import Candidates
        from sparseattn.patterns.neighbor import Neighbor

        return Candidates((0, 1), globals=self.globals).joined(Neighbor(index))


@dataclass(frozen=True)
class LongformerMethod(_Ladder):
    """Longformer's window; with the same global tokens, the same pairs as `uniform`."""

    name: ClassVar[str] = "longformer"
    also_pattern: ClassVar[bool] = True

    def rung(self, index: int) -> Pattern:
        """See `_Ladder.rung`."""
        from sparseattn.patterns.longformer import Longformer

        return Longformer(index, self.globals)


@dataclass(frozen=True)
class BigBirdMethod(_Ladder):
    """BigBird's mix, filled up in its own proportions: as many random keys as window tokens.

    BigBird has three blocks of window and three of random keys. From `radius=0` on, random keys are
    added one by one up to the tokens of the window, 2 radius + 1; then the radius grows.
    """

    name: ClassVar[str] = "bigbird"
    also_pattern: ClassVar[bool] = True

    def rung(self, index: int) -> Pattern:
        """See `_Ladder.rung`."""
        from sparseattn.patterns.bigbird import BigBird

        # 0+0, 0+1, then for each radius r: 2r-1, 2r, 2r+1 random keys, the first with r just grown.
        if index < 2:
            return BigBird(0, index, self.globals)
        radius, more = divmod(index - 2, 3)
        return BigBird(radius + 1, 2 * radius + 1 + more, self.globals)
