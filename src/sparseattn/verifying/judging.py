"""From differences that were measured to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparseattn.words import counted

Array = NDArray[np.float64]

KEPT, IGNORED = "kept", "ignored"
NARROWER, UNPROVEN = "narrower than the plan", "not to be proven from outside"

#: What rounding to single precision may change, in units of the largest output.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
#: The tolerance, in units of the largest difference where nothing had changed.
_NOISE = 8.0
#: An effect must be seen if it should be this many times the tolerance.
_VISIBLE = 10.0
#: Effects this much smaller still show at some of many pairs.
_FAINT = 1 / 16
#: The share of visible effects that must be seen.
_SEEN = 0.9
#: So many that should be seen, at one distance or in all, and are not: no chance.
_GROUP = 4
#: The strongest quarter of effects, and which of them says how large others should be: a narrow
#: window has few.
_STRONG, _LEVEL = 0.75, 0.75
#: Logarithms of effects must spread as much for a trend.
_SPREAD = 0.1


@dataclass(frozen=True)
class Pairs:
    """What was measured for pairs of a changed token and an output, or of two changed tokens.

    Attributes:
        expected: How strong the effect should be, in units of its own; 0 for out of reach.
        distance: Tokens between the two.
        difference: What was measured.
        noise: The largest difference where nothing had changed.
        scale: The largest of the outputs.
    """

    expected: Array
    distance: NDArray[np.int64]
    difference: Array
    noise: float
    scale: float

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """All of several texts."""
        columns = ("expected", "distance", "difference")
        joined = {name: np.concatenate([getattr(each, name) for each in parts]) for name in columns}
        noise, scale = max(each.noise for each in parts), max(each.scale for each in parts)
        return cls(**joined, noise=noise, scale=scale)


@dataclass(frozen=True)
class Check:
    """What one kind of output showed.

    Attributes:
        where: Which outputs: `layer 2`, `output of each token`, `vector`.
        verdict: `KEPT`, `IGNORED`, `NARROWER` or `UNPROVEN`.
        why: More about it; may be empty.
        outside: Pairs out of reach.
        outside_largest: The largest difference among them; 0 without any.
        outside_distance: Tokens between the two where it was.
        inside: Pairs within reach whose effect is large enough to be seen.
        inside_seen: Those that were.
        inside_smallest: The smallest difference of these.
        farthest_seen: Tokens between the farthest two of which one changed the other.
        farthest: Tokens between the farthest two within reach.
        tolerance: Differences up to it count as none.
    """

    where: str
    verdict: str
    why: str
    outside: int
    outside_largest: float
    outside_distance: int
    inside: int
    inside_seen: int
    inside_smallest: float
    farthest_seen: int
    farthest: int
    tolerance: float

    def __str__(self) -> str:
        """The numbers in a line."""
        at = f" at a distance of {self.outside_distance}" if self.outside_largest else ""
        smallest = f", smallest difference {self.inside_smallest:.1e}" if self.inside_seen else ""
        far = f", to a distance of {self.farthest_seen} of {self.farthest}"
        return (
            f"{self.where}: {self.verdict}{f' ({self.why})' if self.why else ''}; "
            f"{counted(self.outside, 'pair')} out of reach, largest difference "
            f"{self.outside_largest:.1e}{at}; {self.inside_seen:,} of {self.inside:,} within reach "
            f"seen{smallest}{far}; tolerance {self.tolerance:.1e}"
        )


def judge(
    where: str, pairs: Pairs, *, full: bool = False, exact: bool = True, fading: bool = False
) -> Check:
    """Compares differences with what a plan says of them.

    Args:
        where: Which outputs they are.
        pairs: The differences.
        full: Whether the plan allows every pair, so that none out of reach is needed.
        exact: Whether equal numbers may be asked for where there is no noise.
        fading: Whether weak effects may be weaker than expected, as measured ones tell.
    """
    rounding = _ROUNDING * pairs.scale
    tolerance = max(_NOISE * pairs.noise, 0.0 if exact else rounding)
    outside, seen = pairs.expected == 0, pairs.difference > tolerance
    others = ~outside & (pairs.distance > 0)
    expected = _expected(pairs, others, others & seen, fading)
    visible = expected > max(_VISIBLE * tolerance, rounding)
    faint = expected > max(_VISIBLE * tolerance, rounding * _FAINT)
    largest, distance = 0.0, 0
    if outside.any():
        worst = int(np.argmax(np.where(outside, pairs.difference, -1.0)))
        largest, distance = float(pairs.difference[worst]), int(pairs.distance[worst])
    shown = pairs.difference[visible & seen]
    verdict, why = KEPT, ""
    if largest > tolerance:
        verdict, why = IGNORED, "tokens out of reach change it"
    elif not outside.any() and not full:
        verdict, why = UNPROVEN, "no token is out of reach of any output"
    elif not (visible & others).any():
        few = "too few" if (others & seen).any() else "no"
        verdict, why = UNPROVEN, f"{few} tokens within reach change it by more than the noise"
    elif (apart := _missing(pairs.distance[faint], seen[faint])) is not None:
        verdict, why = NARROWER, f"tokens {apart} apart within reach change nothing"
    elif (share := seen[visible].mean()) < _SEEN and (~seen[visible]).sum() >= _GROUP:
        verdict, why = NARROWER, f"only {share:.0%} of what is within reach changes it"
    return Check(
        where, verdict, why, int(outside.sum()), largest, distance, int(visible.sum()),
        len(shown), float(shown.min(initial=np.inf)),
        int(pairs.distance[~outside & seen].max(initial=0)),
        int(pairs.distance[~outside].max(initial=0)), tolerance,
    )  # fmt: skip


def _expected(
    pairs: Pairs, inside: NDArray[np.bool_], seen: NDArray[np.bool_], fading: bool
) -> Array:
    """Effects in the units of differences.

    How large they are is read off the strongest, whether or not these are above the noise: a few
    that happen to be would promise too much of the others.
    """
    if not seen.any():
        return np.zeros_like(pairs.expected)
    slope = 1.0
    x, y = np.log(pairs.expected[seen]), np.log(pairs.difference[seen])
    if fading and x.std() > _SPREAD:
        slope = max(1.0, float(np.cov(x, y, bias=True)[0, 1] / x.var()))
    strong = inside & (pairs.expected >= np.quantile(pairs.expected[inside], _STRONG))
    shape = pairs.expected**slope
    level = np.quantile(pairs.difference[strong] / shape[strong], _LEVEL)
    if level == 0:  # of most of them nothing comes at all, so it is no noise that hides them
        level = np.quantile(pairs.difference[seen] / shape[seen], _LEVEL)
    return np.asarray(level * shape)


def _missing(distance: NDArray[np.int64], seen: NDArray[np.bool_]) -> int | None:
    """A distance at which nothing was seen though much should have been; None without any."""
    for apart in np.unique(distance):
        there = seen[distance == apart]
        if len(there) >= _GROUP and not there.any():
            return int(apart)
    return None
