"""What a ranking is: an order of the keys of each query, of which a degree keeps the first ones.

A ranking is a frozen dataclass, found by its name: a module in `sparseattn.degrees.rankings`, or
one that a distribution names in the entry-point group `sparseattn.degrees.rankings`. Importing them
loads no torch, as little as reading a method does.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from sparseattn.errors import PlanError
from sparseattn.registry import Registered, Registry
from sparseattn.spec_strings import parse_with, spell_arguments

if TYPE_CHECKING:
    from torch import Tensor

    from sparseattn.pattern import Pattern
    from sparseattn.tokens import TokenBatch


#: Every ranking by name, in alphabetical order.
rankings: Registry[type[Ranking]] = Registry("ranking", "sparseattn.degrees.rankings", PlanError)


@dataclass(frozen=True)
class Ranking(Registered, ABC):
    """An order of the keys of each query.

    Attributes:
        degrees: Candidates for how many keys of the order a head keeps: ascending, the first 0, at
            least two. None for those of `default_degrees`.
    """

    degrees: tuple[float, ...] | None = None

    registry: ClassVar[Registry[Any]] = rankings
    #: Whether the largest degree keeps every pair; learning then starts near it, as good as dense.
    everything: ClassVar[bool] = False
    #: Whether a degree is a whole number, else a share from 0 to 1.
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.degrees is None:
            return
        given: object = self.degrees
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise PlanError(f"{self.name}: degrees {given!r} must be a list, such as [0, 1]")
        degrees = tuple(given)
        if odd := [degree for degree in degrees if not isinstance(degree, Real)]:
            raise PlanError(f"{self.name}: {odd[0]!r} of its degrees is not a number")
        fits = all(_is_count(d) if self.whole else _is_share(d) for d in degrees)
        if not fits or degrees[:1] != (0,) or list(degrees) != sorted(set(self.degrees)):
            kind = "whole numbers" if self.whole else "shares of the length from 0 to 1"
            raise PlanError(
                f"{self.name}: degrees {list(degrees)} must be ascending {kind}, the first 0"
            )
        if len(degrees) < 2:
            raise PlanError(f"{self.name}: degrees {list(degrees)} leave nothing to choose")
        object.__setattr__(
            self, "degrees", degrees if self.whole else tuple(map(float, self.degrees))
        )

    @abstractmethod
    def default_degrees(self, longest: int) -> tuple[float, ...]:
        """Candidates for texts of at most `longest` tokens; ascending, the first 0."""

    @abstractmethod
    def pattern(self, degree: float) -> Pattern:
        """The pattern that keeps the keys of rank 1 to `degree`, at least 1 (or a share above 0).

        It allows exactly the pairs whose rank is at most the degree, a token's own place aside.
        """

    @abstractmethod
    def ranks(self, tokens: TokenBatch, layer: int, most: float) -> Tensor:
        """The rank of each key in the order of each query; above `most` for what is not in it.

        Args:
            tokens: The batch.
            layer: The attention layer; looked at only if the pattern varies by layer.
            most: Higher ranks need not be told apart.

        Returns:
            Shape: [batch or 1, length, length]; int64 (any float for shares).
        """

    def __str__(self) -> str:
        """The name, or the call with its arguments, which parses back to an equal ranking."""
        given = ", ".join(spell_arguments(self))
        return f"{self.name}({given})" if given else self.name


def _is_count(degree: object) -> bool:
    return isinstance(degree, int) and not isinstance(degree, bool) and degree >= 0


def _is_share(degree: object) -> bool:
    return isinstance(degree, int | float) and not isinstance(degree, bool) and 0 <= degree <= 1


def parse_rankings(over: str | Sequence[str]) -> tuple[Ranking, ...]:
    """Reads rankings: names, or calls such as `neighbor(degrees=[0, 1, 8])`.

    Args:
        over: A list of them, or a string with commas between them.

    Raises:
        PlanError: None is given, one is given twice, or its degrees are not possible.
        SpecError: It does not parse, or names an unknown ranking.

    >>> [str(ranking) for ranking in parse_rankings("neighbor, similarity(degrees=[0, 2])")]
    ['neighbor', 'similarity(degrees=[0, 2])']
    """
    if isinstance(over, str):
        over = re.split(r",(?![^()]*\))", over) if over.strip() else []
    if not isinstance(over, Sequence):
        raise PlanError(f"over: rankings are a list, such as [neighbor]; got {over!r}")
    found = []
    for text in over:
        if not isinstance(text, str):
            raise PlanError(f"over: a ranking is named by a string; got {text!r}")
        name = text.strip()
        if not name:
            raise PlanError("over: the name of a ranking is missing between or after commas")
        found.append(parse_with(rankings, name) if "(" in name else rankings.find(name)())
    names = [ranking.name for ranking in found]
    if not names:
        raise PlanError("over: at least one ranking is needed, such as neighbor")
    if len(set(names)) < len(names):
        raise PlanError(f"over: a ranking is given twice: {', '.join(names)}")
    return tuple(found)
