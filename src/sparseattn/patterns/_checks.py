"""Checks of arguments that several patterns share."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sparseattn.errors import PatternError
from sparseattn.spec_strings import spell

#: The largest whole number that an argument may be: products of two still fit an int64.
LARGEST = 2**31 - 1


def refused(pattern: Any, field: str, rule: str) -> PatternError:
    """The error of a field whose value breaks a rule: one line with pattern, field and value."""
    value = getattr(pattern, field)
    # A quoted number shows why radius="2" is not a whole number.
    shown = repr(value) if isinstance(value, str) else spell(value)
    return PatternError(f"{pattern.name}({field}={shown}): {field} {rule}")


def at_least(pattern: Any, **lowest: int) -> None:
    """Checks that each named field is a whole number of at least the value given.

    NumPy's integers become Python's, so that equal patterns print and hash alike.

    Raises:
        PatternError: One is not.
    """
    for field, bound in lowest.items():
        rule = f"must be a whole number >= {bound}"
        number = _whole(pattern, field, getattr(pattern, field), bound, rule)
        object.__setattr__(pattern, field, number)


def whole_numbers(pattern: Any, field: str) -> tuple[int, ...]:
    """Checks that a field is a list of whole numbers >= 0, and makes it a tuple.

    Raises:
        PatternError: It is not.
    """
    rule = "must be whole numbers >= 0"
    numbers = tuple(_whole(pattern, field, value, 0, rule) for value in listed(pattern, field))
    object.__setattr__(pattern, field, numbers)
    return numbers


def _whole(pattern: Any, field: str, value: Any, bound: int, rule: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < bound:
        raise refused(pattern, field, rule)
    if int(value) > LARGEST:
        raise refused(pattern, field, f"must be at most {LARGEST}")
    return int(value)


def flag(pattern: Any, field: str) -> None:
    """Checks that a field is true or false.

    Raises:
        PatternError: It is not.
    """
    if not isinstance(getattr(pattern, field), bool):
        raise refused(pattern, field, "must be true or false")


def listed(pattern: Any, field: str) -> tuple[Any, ...]:
    """Checks that a field is a list or tuple, and makes it a tuple, which can be hashed.

    Raises:
        PatternError: It is not.
    """
    value = getattr(pattern, field)
    if not isinstance(value, list | tuple):
        raise refused(pattern, field, "must be a list, such as [...]")
    object.__setattr__(pattern, field, tuple(value))
    return tuple(value)


def distinct_names(pattern: Any, field: str, choices: tuple[str, ...]) -> None:
    """Checks that a field is a list of distinct names out of `choices`.

    Raises:
        PatternError: It is not.
    """
    value = listed(pattern, field)
    if any(name not in choices for name in value) or len(set(value)) != len(value):
        raise refused(pattern, field, f"takes each of {', '.join(choices)} at most once")
