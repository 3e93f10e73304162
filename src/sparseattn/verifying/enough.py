"""How long a text must be for any token to be out of reach."""

from __future__ import annotations

from collections.abc import Callable

from sparseattn.verifying.reach import Reach
from sparseattn.verifying.subject import Subject

__all__ = ["of_layers", "of_tokens", "of_vector", "shortest"]

#: The longest text that is thought of.
_LONGEST = 2048

#: Whether a text of a length has anything out of reach.
Enough = Callable[[Reach], bool]


def of_layers(reach: Reach) -> bool:
    """In some layer."""
    return not reach.is_full


def of_tokens(reach: Reach) -> bool:
    """Of some token's output."""
    ends = {0, len(reach.layers[0]) // 2, len(reach.layers[0]) - 1}
    return any(bool((reach.changed_by_tokens([end]) == 0).any()) for end in ends)


def of_vector(reach: Reach) -> bool:
    """Of a vector: of two tokens at the ends, no output may be reached by both."""
    length = len(reach.layers[0])
    if length < 4:
        return False
    effects = reach.changed_by_tokens([1, length - 2])
    return not bool((effects[:, 0] * effects[:, 1]).any())


def shortest(subject: Subject, enough: Enough) -> int | None:
    """The fewest tokens of a text that has enough out of reach; None where none has."""
    longest = min(subject.longest or _LONGEST, _LONGEST)

    def holds(length: int) -> bool:
        compiled = subject.compile_length(length)
        return compiled is not None and enough(Reach.of(compiled))

    high = 4
    while high < longest and not holds(high):
        high = min(2 * high, longest)
    if not holds(high):
        return None
    low = 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
