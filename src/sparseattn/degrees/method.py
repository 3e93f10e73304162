"""Methods: arms of a study that find their own plan, for a sparsity.

A method is written as a call, like a pattern, and is told from a pattern by its sparsity:
`bigbird(sparsity=0.9)` is a method, `bigbird(radius=1, random=2)` a pattern. Importing this module
loads neither torch nor transformers.

Every arm trains for the same number of steps. `learned` shares them out between its search phase
(half, by default) and a fine-tune under the plan; all others train under their plan from the first
step. That goes for `shuffled(learned(...))` too, whose degrees cost a search phase that is not
counted: a control is to be given no less than what it is compared with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.errors import PatternError, PlanError
from sparseattn.registry import Registered, Registry
from sparseattn.spec_strings import parse_with, spell_arguments

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sparseattn.degrees.texts import Texts
    from sparseattn.plan import Plan

#: Which learned degrees these are. A trial's digest holds it, and it is raised when a search phase
#: comes out otherwise than before. 2: the budget's gap is one of logarithms. 3: degrees of several
#: rankings; a plan is the one nearest to the soft masks.
REVISION = "3"


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may use of a trial.

    Attributes:
        model: The model, before training; a method that trains it does so in place.
        tokenizer: Its tokenizer.
        data: Training rows; budgets are met on them, or on `evaluation`.
        collator: Joins rows into a batch.
        arguments: How the trial is trained.
        steps: Optimiser steps of the trial.
        trainer: More for the `Trainer` of a method that trains: callbacks; `eval_dataset` and
            `compute_metrics` to evaluate after the search phase and when degrees are discrete.
        evaluation: Evaluation rows, for `budget_split=evaluation`.
    """

    model: Any
    tokenizer: Any
    data: Any
    collator: Any
    arguments: TrainingArguments
    steps: int
    trainer: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Any = None


@dataclass(frozen=True, eq=False)
class Applied:
    """What a method came to.

    Attributes:
        plan: The plan, which is not on the model yet.
        steps: Training steps that it took; the rest is for training under the plan.
        history: A record a step of them.
        metrics: See `sparseattn.degrees.learn.Learner`, for a method that trains.
    """

    plan: Plan
    steps: int = 0
    history: tuple[dict[str, float], ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


#: Every method by name, in alphabetical order.
methods: Registry[type[Method]] = Registry("method", "sparseattn.degrees.methods", PatternError)


@dataclass(frozen=True)
class Method(Registered, ABC):
    """A way to spend a sparsity. Subclasses are frozen dataclasses with a `name`."""

    registry: ClassVar[Registry[Any]] = methods
    #: Whether a pattern has that name, too.
    also_pattern: ClassVar[bool] = False

    @property
    @abstractmethod
    def base(self) -> BudgetMethod:
        """The method whose budget it spends: itself, or the arm of a control."""

    @property
    def passes(self) -> float:
        """What its training costs, in trainings of an arm with a fixed plan."""
        return 1.0

    @property
    def needs(self) -> frozenset[str]:
        """The annotations that its plan may read of the texts."""
        return frozenset()

    def check(self, texts: Texts, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Makes sure that its options leave a way to its sparsity on some texts.

        Raises:
            PlanError: The model has not the layers that are to stay dense or empty, or the radii
                that are left reach no such sparsity.
            UnsupportedModelError: The method looks at the attention of a model that takes only a
                boolean mask.
        """
        return

    @abstractmethod
    def apply(self, context: Context) -> Applied:
        """Finds the plan.

        Raises:
            PlanError: The sparsity cannot be reached on the training texts.
        """

    def __str__(self) -> str:
        """The call, which parses back to an equal method."""
        return f"{self.name}({', '.join(spell_arguments(self))})"


class BudgetMethod(Method):
    """A method with a budget of its own, in three fields that each subclass has.

    They mean what they do in `sparseattn.degrees.settings.Settings`.
    """

    sparsity: float
    globals: tuple[str, ...] | int
    budget_split: str

    @property
    def base(self) -> BudgetMethod:
        """Itself."""
        return self

    def check_sparsity(self) -> None:
        """Raises a PlanError if the sparsity is not a number that some text may reach."""
        number = isinstance(self.sparsity, int | float) and not isinstance(self.sparsity, bool)
        if not number or not 0 < self.sparsity < 1:
            raise PlanError(
                f"{self.name}(): sparsity {self.sparsity!r} must be a number between 0 and 1"
            )


def is_method(text: str) -> bool:
    """Whether an arm is a method: a call of one.

    Where a pattern has that name, too, what tells them apart is a sparsity.

    >>> is_method("bigbird(sparsity=0.9)"), is_method("bigbird(radius=1, random=2)")
    (True, False)
    """
    name, opened, _ = text.strip().partition("(")
    if not opened or name.strip() not in methods:
        return False
    return not methods[name.strip()].also_pattern or "sparsity" in text


def parse_method(text: str) -> Method:
    """Reads a method.

    Raises:
        SpecError: It does not parse, or names an unknown method.
        PatternError: An argument is unknown, missing or given twice.
        PlanError: A value is not possible.
    """
    method: Method = parse_with(methods, text)
    return method
