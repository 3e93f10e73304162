"""What a pattern is, and the algebra that joins patterns.

A pattern is a frozen dataclass whose fields are its arguments: it is its own configuration. It has
one method to write, `rule`, which turns a batch of tokens into the pairs that it allows. Defining a
subclass with a `name` registers it; a module in this package is imported on first use, and so is
what other distributions name in the entry-point group `sparseattn.patterns`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from sparseattn.errors import PatternError
from sparseattn.registry import Registered, Registry
from sparseattn.rules import AllPairs, Both, Except, Rule
from sparseattn.spec_strings import parse_with, spell, spell_arguments
from sparseattn.tokens import TokenBatch

#: Operators that may stand inside one another: every walk through a pattern recurses.
_DEEPEST = 100

#: The rules that were made for a batch, by pattern and by layer where it varies.
_RULES: WeakKeyDictionary[TokenBatch, dict[tuple[Pattern, int | None], Rule]] = WeakKeyDictionary()


#: Every pattern by name, in alphabetical order.
catalogue: Registry[type[Pattern]] = Registry("pattern", "sparseattn.patterns", PatternError)


@dataclass(frozen=True)
class Pattern(Registered, ABC):
    """A rule that says which (query, key) pairs are allowed, given the tokens.

    Subclasses are frozen dataclasses of plain values (int, float, bool, str, tuples of these, other
    patterns), so that a pattern can be compared, hashed, printed and parsed back. They do not care
    for padding or for a token's own place on the diagonal: `sparseattn.plan` sees to both.
    """

    registry: ClassVar[Registry[Any]] = catalogue
    #: The allowed pairs as a formula, for the catalogue.
    formula: ClassVar[str] = ""
    #: Keys a query may attend to, away from the borders, itself included. (Not called `degree`: a
    #: pattern may have an argument of that name.)
    degrees: ClassVar[str] = ""
    #: Where the idea comes from.
    source: ClassVar[str] = ""
    #: A spec string that the catalogue, the documentation and the conformance tests use.
    example: ClassVar[str] = ""

    @abstractmethod
    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        """Returns the pairs that this pattern allows in a batch.

        Args:
            tokens: The batch.
            layer: The attention layer, counted from 0. Only a pattern whose `varies_by_layer` is
                true may look at it.

        Raises:
            AnnotationError: The batch lacks something of `needs`.
        """

    @property
    def needs(self) -> frozenset[str]:
        """The annotations it reads: names of `sparseattn.annotations.ANNOTATIONS`."""
        return frozenset()

    @property
    def varies_by_layer(self) -> bool:
        """Whether two layers may get different pairs."""
        return False

    @classmethod
    def signature(cls) -> str:
        """How it is called: its arguments and their defaults.

        >>> catalogue["random"].signature()
        'random(degree, seed=0, per_layer=true, [drawn])'
        """
        arguments = (
            field.name
            if field.default is dataclasses.MISSING
            else f"[{field.name}]"
            if field.default is None
            else f"{field.name}={spell(field.default)}"
            for field in dataclasses.fields(cls)
        )
        return f"{cls.name}({', '.join(arguments)})"

    def __or__(self, other: Pattern) -> Pattern:
        """Pairs that either allows."""
        return Union(self, other)

    def __and__(self, other: Pattern) -> Pattern:
        """Pairs that both allow."""
        return Intersection(self, other)

    def __sub__(self, other: Pattern) -> Pattern:
        """Pairs that the first allows and the second does not."""
        return Difference(self, other)

    def __str__(self) -> str:
        """The spec string, which parses back to an equal pattern."""
        return f"{self.name}({', '.join(self._arguments())})"

    def _arguments(self) -> Iterable[str]:
        return spell_arguments(self)


def rule_of(pattern: Pattern, tokens: TokenBatch, layer: int = 0) -> Rule:
    """`pattern.rule(tokens, layer)`, made once for all layers and unions of a batch."""
    rules = _RULES.setdefault(tokens, {})
    key = pattern, layer if pattern.varies_by_layer else None
    if key not in rules:
        rules[key] = pattern.rule(tokens, layer)
    return rules[key]


@dataclass(frozen=True)
class Joined(Pattern):
    """Two patterns and an operator."""

    left: Pattern
    right: Pattern

    symbol: ClassVar[str] = ""
    #: How tightly the operator binds; as in Python, `-` before `&` before `|`.
    binding: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Counts the operators inside."""
        depth = 1 + max(getattr(side, "_depth", 0) for side in (self.left, self.right))
        if depth > _DEEPEST:
            raise PatternError(f"a pattern joins at most {_DEEPEST} others in a row")
        object.__setattr__(self, "_depth", depth)

    @property
    def needs(self) -> frozenset[str]:
        """What either side needs."""
        return self.left.needs | self.right.needs

    @property
    def varies_by_layer(self) -> bool:
        """Whether either side does."""
        return self.left.varies_by_layer or self.right.varies_by_layer

    def __str__(self) -> str:
        """The spec string, with brackets only where the operators need them."""
        left, right = (str(side) for side in (self.left, self.right))
        if isinstance(self.left, Joined) and self.left.binding < self.binding:
            left = f"({left})"
        if isinstance(self.right, Joined) and self.right.binding <= self.binding:
            right = f"({right})"
        return f"{left} {self.symbol} {right}"


class Union(Joined):
    """Pairs that either side allows."""

    symbol, binding = "|", 1

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        left, right = (rule_of(side, tokens, layer) for side in (self.left, self.right))
        return (
            Rule((AllPairs(),)) if left.is_full or right.is_full else Rule(left.parts + right.parts)
        )


class Intersection(Joined):
    """Pairs that both sides allow."""

    symbol, binding = "&", 2

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((Both(*(rule_of(side, tokens, layer) for side in (self.left, self.right))),))


class Difference(Joined):
    """Pairs that the left side allows and the right side does not."""

    symbol, binding = "-", 3

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return Rule((Except(*(rule_of(side, tokens, layer) for side in (self.left, self.right))),))


def parse(text: str) -> Pattern:
    """Reads a pattern's spec string.

    Raises:
        SpecError: It does not parse; the message points at the column.
        PatternError: It parses, but names an unknown pattern or argument, or a wrong value.

    >>> parse("neighbor(2) | global(cls) & full()")
    Union(left=Neighbor(radius=2), right=Intersection(left=Global(...), right=Full()))
    """
    if not isinstance(text, str):
        raise PatternError(f"a pattern is spelled like 'neighbor(radius=2)', got {text!r}")
    found: Pattern = parse_with(catalogue, text)
    return found
