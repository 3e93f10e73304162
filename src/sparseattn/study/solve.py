"""The whole number that brings a pattern nearest to a degree or sparsity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sparseattn.errors import PatternError, StudyError

__all__ = ["FREE", "Realised", "Target", "solve"]

#: Stands for the number in a pattern.
FREE = "?"


@dataclass(frozen=True)
class Realised:
    """What a pattern comes to on sample texts, over the layers that carry it.

    Attributes:
        degree: Keys a query attends to, averaged over real tokens, layers and heads.
        sparsity: Share of the pairs of real tokens that are not allowed, in [0, 1].
        overall: The same over all layers of the model, the dense ones included.
    """

    degree: float
    sparsity: float
    overall: float


@dataclass(frozen=True)
class Target:
    """What to come near to.

    Attributes:
        kind: Which number of `Realised`.
        value: The number.
    """

    kind: Literal["degree", "sparsity"]
    value: float

    def of(self, realised: Realised) -> float:
        """The number that is to come near."""
        return float(getattr(realised, self.kind))


def solve(
    text: str, target: Target, count: Callable[[str], Realised], highest: int
) -> tuple[int, Realised]:
    """Finds the number by halving, which takes for granted that more of it means more (or fewer).

    Args:
        text: A pattern with one `?`.
        target: What to come near to.
        count: What a pattern comes to on the sample.
        highest: The largest number worth trying: the tokens of the longest text.

    Returns:
        The number, and what the pattern comes to with it.

    Raises:
        StudyError: No number comes as low or as high as the target.
        PatternError: The pattern takes no number there.
    """
    known: dict[int, Realised] = {}

    def value(number: int) -> float:
        if number not in known:
            known[number] = count(text.replace(FREE, str(number)))
        return target.of(known[number])

    low, high = _lowest(value), max(highest, 2)
    ends = value(low), value(high)
    if not min(ends) <= target.value <= max(ends):
        raise StudyError(
            f"{text!r} cannot reach a mean {target.kind} of {target.value:g} on this text: "
            f"with {low} in place of the ? it is {ends[0]:.4g}, with {high}, the most that is "
            f"worth trying, {ends[1]:.4g}"
        )
    rising = ends[0] <= ends[1]
    while high - low > 1:
        middle = (low + high) // 2
        if (value(middle) < target.value) == rising:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda number: abs(value(number) - target.value))
    return best, known[best]


def _lowest(value: Callable[[int], float]) -> int:
    for number in (0, 1):
        try:
            value(number)
        except PatternError:
            continue
        return number
    value(2)
    return 2
