"""Arms that find their plan themselves: a method takes a sparsity and makes a plan that meets it.

A method is written as a call, like a pattern, and is told from a pattern by its sparsity:
`bigbird(sparsity=0.9)` is a method, `bigbird(radius=1, random=2)` a pattern. Importing this module
loads neither torch nor transformers.

Every arm trains for the same number of steps. `learned` shares them out between its soft phase
(half, by default) and a fine-tune under the hard plan; all others train under their plan from the
first step. That goes for `shuffled(learned(...))` too, whose degrees cost a soft phase that is not
counted: a control is to be given no less than what it is compared with.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.errors import PatternError, PlanError, SpecError
from sparseattn.registry import Registry
from sparseattn.spec_strings import parse_with

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sparseattn.degrees.texts import Texts
    from sparseattn.plan import Plan

__all__ = [
    "REVISION",
    "Applied",
    "Context",
    "Method",
    "Spending",
    "is_method",
    "methods",
    "parse_method",
]

#: Which learned degrees these are. A trial's digest holds it, and it is raised when a soft phase
#: comes out otherwise than before. 2: the budget's gap is one of logarithms.
REVISION = "2"


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may use.

    Attributes:
        model: The model, before training; a method that trains it does so in place.
        tokenizer: Its tokenizer.
        data: Training rows; budgets are solved on them, unless a method says `over=evaluation`.
        collator: Joins rows into a batch.
        arguments: How the trial is trained.
        steps: Optimiser steps of the trial.
        seed: The trial's.
        trainer: More for the `Trainer` of a method that trains: callbacks; `eval_dataset` and
            `compute_metrics` to evaluate before and after hardening.
        evaluation: Evaluation rows, for budgets that are to hold over these.
    """

    model: Any
    tokenizer: Any
    data: Any
    collator: Any
    arguments: TrainingArguments
    steps: int
    seed: int
    trainer: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Any = None


@dataclass(frozen=True, eq=False)
class Applied:
    """What a method came to.

    Attributes:
        plan: The plan, which is not on the model yet.
        steps: Training steps that it took; the rest is for training under the plan.
        history: A record a step of them.
        metrics: Of the model before its degrees were made hard (`soft`) and after (`hardened`),
            where a method trains and `Context.trainer` says how to evaluate.
    """

    plan: Plan
    steps: int = 0
    history: tuple[dict[str, float], ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Method(ABC):
    """A way to spend a sparsity. Subclasses are frozen dataclasses with a `name`."""

    #: Its name in an arm; registers the class.
    name: ClassVar[str] = ""
    #: Whether a pattern has that name, too.
    also_pattern: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers a named subclass."""
        super().__init_subclass__(**kwargs)
        if name := cls.__dict__.get("name"):
            methods.add(name, cls, cls)

    @property
    @abstractmethod
    def stated(self) -> float:
        """The sparsity that it spends."""

    @property
    @abstractmethod
    def global_tokens(self) -> tuple[str, ...] | int:
        """The global tokens of its plan: kinds, or how many first tokens."""

    @property
    @abstractmethod
    def counted_over(self) -> str:
        """The texts that its sparsity is to hold over: see `sparseattn.degrees.settings.OVER`."""

    @property
    def passes(self) -> float:
        """What its training costs, in trainings of an arm with a fixed plan."""
        return 1.0

    def check(self, texts: Texts, tokenizer: Any = None) -> None:  # noqa: ARG002
        """Makes sure that its options leave a way to its sparsity.

        Args:
            texts: Some of those that its sparsity is to hold over.
            tokenizer: Tells which tokens are separators, where they are global.

        Raises:
            PlanError: The model has not the layers that are to stay dense or to be spared, or the
                radii that are left reach no such sparsity.
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
        given = (
            f"{one.name}={_spelled(value)}"
            for one in dataclasses.fields(self)
            if (value := getattr(self, one.name)) != one.default
        )
        return f"{self.name}({', '.join(given)})"


class Spending(Method):
    """A method with a budget of its own, in three fields that each subclass has."""

    sparsity: float
    globals: tuple[str, ...] | int
    over: str

    @property
    def stated(self) -> float:
        """See `Method.stated`."""
        return self.sparsity

    @property
    def global_tokens(self) -> tuple[str, ...] | int:
        """See `Method.global_tokens`."""
        return self.globals

    @property
    def counted_over(self) -> str:
        """See `Method.counted_over`."""
        return self.over


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, str) and not value.isidentifier():  # such as the layers ':2'
        return repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


#: Every method by name, in alphabetical order.
methods: Registry[type[Method]] = Registry("method", "sparseattn.degrees.methods", PatternError)


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
        SpecError: It does not parse, or names an unknown method or argument.
        PlanError: A value is not possible.
    """
    made = parse_with(methods, text)
    if not isinstance(made, Method):
        raise SpecError("expected a method", text, 0)
    return made


def check_sparsity(value: object) -> None:
    """Checks that a method's sparsity is a number that some text may reach.

    Raises:
        PlanError: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:  # type: ignore[operator]
        raise PlanError(f"sparsity {value!r} must be a number between 0 and 1")
