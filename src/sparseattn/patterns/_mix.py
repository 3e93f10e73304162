"""Patterns that are a union of others, under a name and arguments of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from numbers import Integral
from operator import or_
from typing import Any

from sparseattn.annotations import GLOBALS
from sparseattn.pattern import Pattern, Union, rule_of
from sparseattn.patterns._checks import at_least, distinct_names, refused
from sparseattn.patterns.global_ import Global
from sparseattn.rules import Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Mix(Pattern):
    """A union of patterns: allows, needs and varies as they do."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Pattern, ...]:
        """The patterns it consists of, at least one."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(part.needs for part in self.parts))

    @property
    def varies_by_layer(self) -> bool:
        return any(part.varies_by_layer for part in self.parts)

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        return rule_of(reduce(or_, self.parts), tokens, layer)


def check_globals(pattern: Pattern, value: Any) -> None:
    """Checks a mix's `globals`: a count of first tokens, or a list out of cls and sep.

    Raises:
        PatternError: It is neither.
    """
    if isinstance(value, list | tuple):
        distinct_names(pattern, "globals", GLOBALS)
    elif isinstance(value, bool) or not isinstance(value, Integral):
        names = ", ".join(GLOBALS)
        raise refused(pattern, "globals", f"must be a whole number or a list of {names}")
    else:
        at_least(pattern, globals=0)


def global_tokens(value: int | tuple[str, ...]) -> tuple[Pattern, ...]:
    """The pattern of a mix's global tokens; none for a count of 0 or an empty list."""
    if not value:
        return ()
    return (Global(first=value) if isinstance(value, int) else Global(kinds=value),)


def united(pattern: Pattern) -> Iterator[Pattern]:
    """The patterns that one is a union of, in their order; itself if it is none."""
    if isinstance(pattern, Union):
        yield from united(pattern.left)
        yield from united(pattern.right)
    elif isinstance(pattern, Mix):
        for part in pattern.parts:
            yield from united(part)
    else:
        yield pattern
