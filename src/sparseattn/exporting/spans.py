"""What a plan's patterns become in an exported graph, which knows positions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseattn.errors import PatternError, PlanError, first_line
from sparseattn.pattern import Pattern
from sparseattn.patterns._mix import united
from sparseattn.patterns.dilated import Dilated
from sparseattn.patterns.full import Full
from sparseattn.patterns.global_ import Global
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.patterns.self_ import Self
from sparseattn.plan import Plan
from sparseattn.rules import (
    AllPairs,
    Band,
    Both,
    Except,
    GlobalTokens,
    Product,
    Rule,
    SameLabel,
)
from sparseattn.tokens import TokenBatch

#: Parts of rules that can be computed from positions in a graph.
_POSITIONAL = (AllPairs, Band, GlobalTokens, Product, SameLabel)


@dataclass(frozen=True)
class Window:
    """Tokens within reach, and global tokens: computed as overlapping chunks.

    Attributes:
        bands: Radius and dilation of each band that it is the union of; the token itself is always
            in one.
        slots: Places of global tokens among the real tokens.
        limit: A radius that not even global tokens exceed; None where they attend everywhere.
    """

    bands: tuple[tuple[int, int], ...]
    slots: tuple[int, ...] = ()
    limit: int | None = None

    @property
    def reach(self) -> int:
        """How many tokens away the farthest key of a window can be."""
        if self.slots and self.limit is not None:
            return self.limit
        return max(radius * dilation for radius, dilation in self.bands)

    def __str__(self) -> str:
        """As a line of a report."""
        globals_ = f", global tokens {', '.join(map(str, self.slots))}" if self.slots else ""
        return f"chunks with {self.reach} tokens to each side{globals_}"


@dataclass(frozen=True)
class Masked:
    """A pattern that is no window: dense attention under a mask that the graph computes."""

    pattern: Pattern
    layer: int = 0
    limit: int | None = None

    def __str__(self) -> str:
        """As a line of a report."""
        if isinstance(self.pattern, Full):
            return "dense, as the plan says"
        return f"a mask of length x length: {self.pattern} is no window"


Span = Window | Masked
#: A partition of a layer's heads, with the span that each part shares.
Groups = tuple[tuple[tuple[int, ...], Span], ...]


def spans_of(plan: Plan, heads: Sequence[int], limits: Sequence[int | None]) -> tuple[Groups, ...]:
    """What the heads of each layer become.

    Args:
        plan: The plan.
        heads: Heads of each attention layer.
        limits: The radius that each layer never exceeds; None for no limit.

    Raises:
        PlanError: A pattern asks for more than positions, or draws its keys.
    """
    layers = []
    for layer, (groups, limit) in enumerate(zip(plan.resolve(heads), limits, strict=True)):
        by_span: dict[Span, list[int]] = {}
        for members, pattern in groups:
            by_span.setdefault(_span(pattern, layer, limit), []).extend(members)
        layers.append(tuple((tuple(sorted(who)), span) for span, who in by_span.items()))
    return tuple(layers)


def _span(pattern: Pattern, layer: int, limit: int | None) -> Span:
    parts = list(united(pattern))
    if any(isinstance(part, Full) for part in parts):
        return Masked(Full()) if limit is None else Window(((limit, 1),))
    if not all(isinstance(part, Self | Neighbor | Dilated) or _is_placed(part) for part in parts):
        _check_positional(pattern, layer)
        return Masked(pattern, layer if pattern.varies_by_layer else 0, limit)
    bands = {(0, 1)} | {_band(part) for part in parts if not isinstance(part, Global)}
    slots = {slot for part in parts if isinstance(part, Global) for slot in _slots(part)}
    if limit is not None:
        bands = {(min(radius, limit // dilation), dilation) for radius, dilation in bands}
    return Window(tuple(sorted(bands)), tuple(sorted(slots)), limit)


def _is_placed(part: Pattern) -> bool:
    """Whether these are global tokens at fixed places, both their rows and their columns."""
    return isinstance(part, Global) and part.rows and part.columns and "sep" not in part.kinds


def _band(pattern: Pattern) -> tuple[int, int]:
    if isinstance(pattern, Dilated):
        return pattern.radius, pattern.dilation
    return (pattern.radius, 1) if isinstance(pattern, Neighbor) else (0, 1)


def _slots(pattern: Global) -> set[int]:
    return {*range(max(pattern.first, int("cls" in pattern.kinds))), *pattern.positions}


def _check_positional(pattern: Pattern, layer: int) -> None:
    where = f"layer {layer}: {pattern} cannot be exported"
    why = f"it needs {', '.join(sorted(pattern.needs))}"
    if not pattern.needs:
        try:
            rule = pattern.rule(TokenBatch.of_lengths(5), layer)
        except PatternError as error:
            raise PlanError(f"{where}: {first_line(error)}") from None
        if _is_positional(rule):
            return
        why = "its keys are drawn or listed for each text"
    raise PlanError(
        f"{where}: {why}, and an exported file computes from positions and padding alone"
    )


def _is_positional(rule: Rule) -> bool:
    return all(
        isinstance(part, _POSITIONAL)
        or (isinstance(part, Both | Except) and all(map(_is_positional, (part.left, part.right))))
        for part in rule.parts
    )
