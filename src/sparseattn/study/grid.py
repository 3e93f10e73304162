"""From the arms of a spec to the arms that are run: grids multiplied out, free numbers solved."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from sparseattn.degrees.method import is_method
from sparseattn.errors import PatternError, PlanError, StudyError
from sparseattn.selection import is_plan
from sparseattn.study import arms
from sparseattn.study.spec import MATCHED, ArmSpec, StudySpec
from sparseattn.study.trial import Start

#: Stands for the number in a pattern that is to be solved for.
_FREE = "?"


@dataclass(frozen=True)
class Arm:
    """An arm on one placement, with nothing left open.

    Attributes:
        name: What the report calls it.
        pattern: See `sparseattn.study.trial.TrialSpec`.
        layers: Where the pattern stands.
        target: What its `?` was solved for, such as `{"degree": 5}`; empty where it had none.
        measured: Its `ArmSparsity`, where it was solved.
        needs: The annotations that its pattern reads.
        start: See `sparseattn.study.trial.TrialSpec`.
    """

    name: str
    pattern: str
    layers: str
    target: Mapping[str, float]
    measured: Mapping[str, float]
    needs: tuple[str, ...] = ()
    start: Start = "pretrained"


@dataclass(frozen=True)
class ArmSparsity:
    """What a pattern comes to on sample texts, over the layers that carry it.

    Attributes:
        degree: Keys a query attends to, averaged over real tokens, layers and heads.
        sparsity: Share of the pairs of real tokens that are not allowed, in [0, 1].
        overall: The same over all layers of the model, the dense ones included.
    """

    degree: float
    sparsity: float
    overall: float


Measure = Callable[[str, str], ArmSparsity]


def check_size(spec: StudySpec, most: int, resolved: int | None = None) -> None:
    """A `StudyError` for too many trials: of so many resolved arms, or before there are any."""
    cells = (
        math.prod(map(len, arm.grid.values())) * max(1, len(_targets(arm))) * len(arm.layers)
        for arm in spec.arms
    )
    trials = (sum(cells) if resolved is None else resolved) * len(spec.seeds)
    if trials > most:
        raise StudyError(
            f"the grid has {trials:,} trials, more than --max-trials {most:,}; "
            "make it smaller or raise the limit"
        )


def patterns(arm: ArmSpec) -> list[str]:
    """The patterns of an arm, with some number in the place of a `?`."""
    return [_with_some_number(cell.pattern) for cell in _cells(arm)] if arm.pattern else []


def _with_some_number(pattern: str) -> str:
    try:
        return arms.check(pattern.replace(_FREE, "1"))
    except PatternError as error:
        try:
            return arms.check(pattern.replace(_FREE, "2"))  # a number that 1 is too low for
        except PatternError:
            raise error from None


@contextmanager
def naming(arm: ArmSpec, index: int) -> Iterator[None]:
    """Says in messages which arm is wrong."""
    try:
        yield
    except (StudyError, PatternError, PlanError) as error:
        raise StudyError(f"arms[{index}] ({arm.name}): {error}") from None


def resolve_arms(spec: StudySpec, measure: Measure, longest: int) -> list[Arm]:
    """Multiplies the grids out and solves the free numbers.

    Args:
        spec: The study.
        measure: Measures a pattern on a placement, on the study's own training texts.
        longest: Tokens of the longest of these texts.

    Raises:
        StudyError: A pattern is wrong, a target cannot be reached, or nothing depends on the text
            for `matched_random` to be the control of; the message names the arm.
    """
    resolved: dict[str, list[Arm]] = {}

    # An arm that aims at the degree of another, and a control, come after what they look at.
    def rank(pair: tuple[int, ArmSpec]) -> int:
        return 2 if pair[1].matched_random is not None else int(isinstance(pair[1].degree, str))

    for index, arm in sorted(enumerate(spec.arms), key=rank):
        with naming(arm, index):
            if arm.matched_random is not None:
                resolved[arm.name] = list(_controls(arm, resolved))
                continue
            cells = list(_cells(arm))
            if isinstance(arm.degree, str):
                cells = [_with_degree_of(arm.degree, cell, measure, resolved) for cell in cells]
            resolved[arm.name] = [_solved(cell, measure, longest) for cell in cells]
    return [
        replace(each, needs=tuple(sorted(arms.needs(each.pattern))))
        for arm in spec.arms
        for each in resolved[arm.name]
    ]


def _targets(arm: ArmSpec) -> list[dict[str, float]]:
    degrees = () if isinstance(arm.degree, str) else arm.degree
    return [{"degree": d} for d in degrees] + [{"sparsity": s} for s in arm.sparsity]


def _cells(arm: ArmSpec) -> Iterator[Arm]:
    """The combinations of an arm; patterns may still have a `?`."""
    if _FREE in arm.pattern and is_method(arm.pattern):
        raise StudyError(f"{arm.pattern} has no number to solve for; write it")
    targets = _targets(arm)
    for values in itertools.product(*arm.grid.values()):
        chosen = dict(zip(arm.grid, values, strict=True))
        pattern = arm.pattern
        for name, value in chosen.items():
            pattern = pattern.replace(f"{{{name}}}", str(value))
        if _FREE not in pattern:
            pattern = arms.check(pattern)
        if arm.layers != (":",) and (is_method(pattern) or is_plan(pattern)):
            raise StudyError(f"{pattern} says for every layer itself; leave out layers")
        for target in targets or [{}]:
            words = [arm.name, *(f"{name}={value}" for name, value in chosen.items())]
            if len(targets) > 1:
                words += [f"{kind}={value:g}" for kind, value in target.items()]
            for layers in (":",) if pattern == arms.DENSE else arm.layers:
                yield Arm(" ".join(words), pattern, layers, target, {}, start=arm.start)


def _with_degree_of(
    name: str, cell: Arm, measure: Measure, resolved: Mapping[str, list[Arm]]
) -> Arm:
    """The cell, aiming at the degree of another arm on the same layers."""
    if name not in resolved:
        raise StudyError(f"arm {name!r} takes its own degree from another arm")
    pattern = resolved[name][0].pattern
    layers = ":" if is_plan(pattern) else cell.layers
    return replace(cell, target={"degree": round(measure(pattern, layers).degree, 4)})


def _solved(cell: Arm, measure: Measure, longest: int) -> Arm:
    if _FREE not in cell.pattern:
        return cell
    ((kind, value),) = cell.target.items()
    number, measured = solve(
        cell.pattern, kind, value, lambda text: measure(text, cell.layers), longest
    )
    pattern = arms.check(cell.pattern.replace(_FREE, str(number)))
    return replace(cell, pattern=pattern, measured=asdict(measured))


def _controls(arm: ArmSpec, resolved: Mapping[str, list[Arm]]) -> Iterator[Arm]:
    every = arm.matched_random == "*"
    names = list(resolved) if every else [name for name in resolved if name == arm.matched_random]
    sources = [each for name in names for each in resolved[name]]
    several = every or len({source.name for source in sources}) > 1
    controls = [(source, arms.with_matched_random(source.pattern)) for source in sources]
    for source, pattern in controls:
        if pattern is not None:
            name = f"{MATCHED} {source.name}" if several else arm.name
            yield Arm(name, pattern, source.layers, {}, {}, start=source.start)
    if not any(pattern for _, pattern in controls):
        where = "no arm looks" if every else f"arm {arm.matched_random!r} does not look"
        raise StudyError(f"{where} at the text, so there is nothing to be the control of")


def solve(
    text: str, kind: str, target: float, measure: Callable[[str], ArmSparsity], longest: int
) -> tuple[int, ArmSparsity]:
    """Finds the whole number that brings a pattern nearest to a degree or sparsity, by bisection.

    Args:
        text: A pattern with one `?`, of which more means always more pairs, or always fewer.
        kind: `degree` or `sparsity`.
        target: What to come near to; a `StudyError` if no number comes as low or as high.
        measure: What a pattern comes to on the sample.
        longest: The largest number worth trying: the tokens of the longest text.

    Returns:
        The number, and what the pattern comes to with it.
    """
    known: dict[int, ArmSparsity] = {}

    def value(number: int) -> float:
        if number not in known:
            known[number] = measure(text.replace(_FREE, str(number)))
        return float(getattr(known[number], kind))

    low, high = _lowest(value), max(longest, 2)
    ends = value(low), value(high)
    if not min(ends) <= target <= max(ends):
        raise StudyError(
            f"{text!r} cannot reach a mean {kind} of {target:g} on this text: "
            f"with {low} in place of the ? it is {ends[0]:.4g}, with {high}, the most that is "
            f"worth trying, {ends[1]:.4g}"
        )
    rising = ends[0] <= ends[1]
    later = range(low + 1, high)
    low += bisect_left(later, True, key=lambda number: (value(number) < target) != rising)
    best = min((low, min(low + 1, high)), key=lambda number: abs(value(number) - target))
    return best, known[best]


def _lowest(value: Callable[[int], float]) -> int:
    """The lowest number that the pattern takes: 0, 1 or 2."""
    for number in (0, 1):
        try:
            value(number)
        except PatternError:
            continue
        return number
    value(2)
    return 2
