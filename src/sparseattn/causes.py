"""Why a pattern has its pairs: its parts by the kind of connection that they make."""

from __future__ import annotations

from dataclasses import dataclass

from sparseattn.palette import kind_of
from sparseattn.pattern import Difference, Intersection, Pattern
from sparseattn.patterns._mix import united

#: Causes that are told apart; the last of more is all others.
_MOST = 7


@dataclass(frozen=True)
class Cause:
    """The parts of a pattern that are of one kind.

    Attributes:
        kind: A name of `sparseattn.palette.KINDS`.
        patterns: The parts.
    """

    kind: str
    patterns: tuple[Pattern, ...]

    def __str__(self) -> str:
        """The parts as a spec string."""
        return " | ".join(map(str, self.patterns))


def kind(pattern: Pattern) -> str:
    """The kind of a pattern's pairs; of what is cut out of another, that of the other."""
    while isinstance(pattern, Difference | Intersection):
        pattern = pattern.left
    return kind_of(pattern.name).name


def causes(pattern: Pattern) -> tuple[Cause, ...]:
    """A pattern's parts by their kind, in their order."""
    found: dict[str, list[Pattern]] = {}
    for part in united(pattern):
        found.setdefault(kind(part), []).append(part)
    made = [Cause(name, tuple(parts)) for name, parts in found.items() if name != "none"]
    if len(made) > _MOST:
        rest = tuple(part for cause in made[_MOST - 1 :] for part in cause.patterns)
        made = [*made[: _MOST - 1], Cause("other", rest)]
    return tuple(made)
