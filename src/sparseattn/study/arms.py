"""What an arm's `pattern` may say, and what the arm is called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import reduce

from sparseattn.degrees.method import is_method, parse_method
from sparseattn.errors import StudyError
from sparseattn.selection import is_plan

#: The arm that keeps every connection.
DENSE = "dense"

#: What the special tokens that a pattern names need; anything beyond depends on the text.
_POSITIONAL = frozenset({"separators", "special"})

#: Selections of layers that have a plain name.
_PLACEMENTS = (
    ("", "none"),
    (":", "all"),
    (r"-(\d+):", r"last \1"),
    (r"(\d+):", r"from \1 on"),
    (r":(\d+)", r"first \1"),
)


@dataclass(frozen=True)
class ArmKey:
    """What is varied: a named setting on a choice of layers.

    Attributes:
        name: The name that the study's spec gives it.
        layers: The layers that carry its pattern, such as `"3:"`; `":"` is all of them and empty
            is none.
        shared: Whether its study has no other placement, so that its name says which arm it is.
    """

    name: str
    layers: str = ""
    shared: bool = field(default=False, compare=False)

    @property
    def address(self) -> str:
        """How to name it on the command line: `name@layers`, or `name` without layers."""
        return f"{self.name}@{self.layers}" if self.layers else self.name

    @property
    def family(self) -> str:
        """Its name without its place in a grid.

        >>> ArmKey("learned s=0.7 k=2").family
        'learned'
        """
        return re.sub(r"( \w+=\S+)+$", "", self.name)

    @property
    def line(self) -> str:
        """Its name without the first factor of its grid: arms of one line differ in that alone.

        >>> ArmKey("learned s=0.7 k=2").line, ArmKey("learned s=0.7").line
        ('learned k=2', 'learned')
        """
        _, *others = self.name.removeprefix(self.family).split() or [""]
        return " ".join([self.family, *others])

    @property
    def placement(self) -> str:
        """Its layers in words; layers are counted from 0."""
        for spelled, words in _PLACEMENTS:
            if match := re.fullmatch(spelled, self.layers):
                return match.expand(words)
        return self.layers

    def __str__(self) -> str:
        """Its name, and its layers in words where others stand on others."""
        shown = self.layers and not self.shared
        return f"{self.name}, layers {self.placement}" if shown else self.name


def check(text: str) -> str:
    """The usual spelling of an arm's pattern.

    Raises:
        StudyError: It is neither `dense` nor a pattern's spec string, nor a plan's lines.
        PatternError: It names an unknown pattern, method or argument, or a value it cannot take.
        PlanError: A value that a method cannot take, or a plan that does not parse.

    >>> check("neighbor(2)|global(cls)")
    'neighbor(radius=2) | global(cls)'
    >>> check("uniform(0.9)")
    'uniform(sparsity=0.9)'
    >>> check("layers 1, heads 0: neighbor(2)")
    'layers 1, heads 0: neighbor(radius=2)'
    """
    from sparseattn.pattern import parse
    from sparseattn.plan import Plan

    if text.strip() == DENSE:
        return DENSE
    if is_method(text):
        return str(parse_method(text))
    if is_plan(text):
        return Plan.of(text).spelled
    if "(" not in text:
        raise StudyError(
            f"pattern {text!r} is neither 'dense' nor a pattern such as 'neighbor(radius=2)'"
        )
    return str(parse(text))


def learns(text: str) -> bool:
    """Whether the plan of an arm comes from a search phase.

    >>> learns("retrained(arm=learned(sparsity=0.9))"), learns("uniform(sparsity=0.9)")
    (True, False)
    """
    return is_method(text) and "learned(" in text


def needs(text: str) -> frozenset[str]:
    """The annotations that a checked arm reads."""
    from sparseattn.plan import Plan

    if text == DENSE:
        return frozenset()
    return parse_method(text).needs if is_method(text) else Plan.of(text).needs


def with_matched_random(text: str) -> str | None:
    """The control of a pattern that looks at the text: the same degrees, other connections.

    The parts of the union that depend on the text are replaced; the others, such as global tokens,
    are kept, and every query has the degree that it has under the whole pattern. None where no part
    depends on the text; of a plan, each entry's.

    >>> with_matched_random("dependency() | global(cls)")
    'matched_random(dependency(), keep=global(cls))'
    """
    from sparseattn.pattern import Pattern, Union, parse
    from sparseattn.patterns.matched_random import MatchedRandom
    from sparseattn.plan import Entry, Plan

    if text == DENSE or is_method(text):
        return None
    if is_plan(text):
        plan = Plan.of(text).entries
        controls = [with_matched_random(str(entry.pattern)) for entry in plan]
        entries = (
            entry if control is None else Entry(parse(control), entry.layers, entry.heads)
            for entry, control in zip(plan, controls, strict=True)
        )
        return Plan(tuple(entries)).spelled if any(controls) else None

    def parts(pattern: Pattern) -> list[Pattern]:
        if isinstance(pattern, Union):
            return parts(pattern.left) + parts(pattern.right)
        return [pattern]

    every = parts(parse(text))
    kept = [p for p in every if p.needs <= _POSITIONAL or p.name == MatchedRandom.name]
    replaced = [p for p in every if p not in kept]
    if not replaced:
        return None
    keep = reduce(Pattern.__or__, kept) if kept else None
    return str(MatchedRandom(reduce(Pattern.__or__, replaced), keep=keep))
