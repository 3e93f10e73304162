"""Methods that look at the model: calibrated and learned degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.degrees.method import Applied, BudgetMethod, Context
from sparseattn.degrees.settings import DEFAULT_OVER, Settings
from sparseattn.errors import PlanError
from sparseattn.selection import Selection

if TYPE_CHECKING:
    from sparseattn.degrees.texts import Texts


class _Degrees(BudgetMethod):
    """A method that finds degrees on texts; its fields are those of `Settings` and a sparsity."""

    dense_layers: Selection
    over: Sequence[str] | str

    def __post_init__(self) -> None:
        self.check_sparsity()
        settings = self.settings()
        # Frozen: one spelling for layers and rankings that are the same.
        object.__setattr__(self, "dense_layers", settings.dense_layers)
        object.__setattr__(self, "over", settings.over)

    def settings(self) -> Settings:
        """Its fields as settings; the message of a wrong one begins with the method's name."""
        names = (field.name for field in fields(Settings))
        options: dict[str, Any] = {n: getattr(self, n) for n in names if hasattr(self, n)}
        try:
            return Settings(**options)
        except PlanError as error:
            raise PlanError(f"{self.name}(): {error}") from None

    @property
    def needs(self) -> frozenset[str]:
        return self.settings().needs

    def check(self, texts: Texts, tokenizer: Any = None) -> None:
        from sparseattn.models.encoder import encoder_of
        from sparseattn.models.masks import check_scores

        check_scores(encoder_of(texts.model).config)
        costs = self.settings().costs(texts, tokenizer)
        try:
            costs.check(self.sparsity)
        except PlanError as error:
            raise PlanError(f"{self}: {error}") from None


@dataclass(frozen=True)
class CalibratedMethod(_Degrees):
    """Degrees that keep the most of what the pretrained model does; no training goes into them."""

    sparsity: float
    over: Sequence[str] | str = DEFAULT_OVER
    granularity: str = "head"
    globals: tuple[str, ...] | int = ("cls",)
    budget_split: str = "train"
    dense_layers: Selection = ""

    name: ClassVar[str] = "calibrated"
    #: Every head keeps the global tokens.
    off: ClassVar[bool] = False

    def apply(self, context: Context) -> Applied:
        from sparseattn.degrees.calibrate import calibrate_rows

        result = calibrate_rows(
            context.model,
            context.data,
            context.collator,
            self.sparsity,
            self.settings(),
            context.tokenizer,
            context.evaluation,
        )
        return Applied(result.plan)


@dataclass(frozen=True)
class LearnedMethod(_Degrees):
    """Degrees that are learned while the model trains; see `sparseattn.degrees.settings`."""

    sparsity: float
    over: Sequence[str] | str = DEFAULT_OVER
    granularity: str = "head"
    globals: tuple[str, ...] | int = ("cls",)
    off: bool = True
    search_steps: float = 0.5
    learning_rate: float = 0.1
    warmup: float = 0.4
    temperature_end: float = 0.05
    budget_split: str = "train"
    dense_layers: Selection = ""

    name: ClassVar[str] = "learned"

    def apply(self, context: Context) -> Applied:
        """See `Method.apply`: trains the model through the search phase."""
        from sparseattn.degrees.learn import Learner

        learner = Learner(
            context.model,
            context.data,
            context.arguments,
            {**context.trainer, "data_collator": context.collator},
            self.settings(),
            context.tokenizer,
            context.evaluation,
        )
        steps = learner.search_steps(context.steps)
        learner.search(self.sparsity, steps)
        plan = learner.discretize(self.sparsity).plan
        learner.evaluate_plan(plan)
        return Applied(plan, steps, tuple(learner.history), learner.metrics)
