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

import ast
import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.errors import PlanError, SpecError, unknown

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from sparseattn.plan import Plan

__all__ = ["Applied", "Context", "Method", "is_method", "methods", "parse_method"]

_REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True, eq=False)
class Context:
    """What a method may use.

    Attributes:
        model: The model, before training; a method that trains it does so in place.
        tokenizer: Its tokenizer.
        data: Training rows; budgets are solved on them.
        collator: Joins rows into a batch.
        arguments: How the trial is trained.
        steps: Optimiser steps of the trial.
        seed: The trial's.
    """

    model: Any
    tokenizer: Any
    data: Any
    collator: Any
    arguments: TrainingArguments
    steps: int
    seed: int


@dataclass(frozen=True, eq=False)
class Applied:
    """What a method came to.

    Attributes:
        plan: The plan, which is not on the model yet.
        steps: Training steps that it took; the rest is for training under the plan.
        history: A record a step of them.
    """

    plan: Plan
    steps: int = 0
    history: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Method(ABC):
    """A way to spend a sparsity. Subclasses are frozen dataclasses with a `name`."""

    #: Its name in an arm; registers the class.
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Registers a named subclass."""
        super().__init_subclass__(**kwargs)
        if name := cls.__dict__.get("name"):
            _REGISTRY[name] = cls

    @abstractmethod
    def apply(self, context: Context) -> Applied:
        """Finds the plan.

        Raises:
            PlanError: The sparsity cannot be reached on the training texts.
        """

    def __str__(self) -> str:
        """The call, which parses back to an equal method."""
        given = (
            f"{field.name}={_spelled(value)}"
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        )
        return f"{self.name}({', '.join(given)})"


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _discover() -> None:
    for module in ("fixed", "found"):
        import_module(f"sparseattn.degrees.arms.{module}")


def methods() -> dict[str, type[Method]]:
    """Every method by name, in alphabetical order."""
    _discover()
    return dict(sorted(_REGISTRY.items()))


def is_method(text: str) -> bool:
    """Whether an arm is a method: a call of one, with a sparsity somewhere inside.

    >>> is_method("bigbird(sparsity=0.9)"), is_method("bigbird(radius=1, random=2)")
    (True, False)
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return False
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    if not named or call.func.id not in methods():  # type: ignore[attr-defined]
        return False
    return any(isinstance(part, ast.keyword) and part.arg == "sparsity" for part in ast.walk(call))


def parse_method(text: str) -> Method:
    """Reads a method.

    Raises:
        SpecError: It does not parse, or names an unknown method or argument.
        PlanError: A value is not possible.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise SpecError("this does not parse", text, (error.offset or 1) - 1) from None
    made = _value(tree, text)
    if not isinstance(made, Method):
        raise SpecError("expected a method", text, 0)
    return made


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _called(node, node.func.id, text)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return tuple(_value(item, text) for item in node.elts)
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id.lower(), node.id)
    raise SpecError("expected a value", text, node.col_offset)


def _called(node: ast.Call, name: str, text: str) -> Method:
    known = methods()
    if name not in known:
        raise SpecError(unknown("method", name, known), text, node.col_offset)
    fields = [field.name for field in dataclasses.fields(known[name])]
    if len(node.args) > len(fields):
        raise SpecError(f"{name}() takes at most {len(fields)} arguments", text, node.col_offset)
    values = {field: _value(arg, text) for field, arg in zip(fields, node.args, strict=False)}
    for keyword in node.keywords:
        if keyword.arg not in fields:
            message = unknown("argument", keyword.arg, fields)
            raise SpecError(f"{name}(): {message}", text, node.col_offset)
        if keyword.arg in values:
            raise SpecError(f"{name}(): {keyword.arg} is given twice", text, node.col_offset)
        values[keyword.arg] = _value(keyword.value, text)
    for field in dataclasses.fields(known[name]):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise SpecError(f"{name}() needs the argument {field.name!r}", text, node.col_offset)
    return known[name](**values)


def check_sparsity(value: object) -> None:
    """Checks that a method's sparsity is a number that some text may reach.

    Raises:
        PlanError: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:  # type: ignore[operator]
        raise PlanError(f"sparsity {value!r} must be a number between 0 and 1")
