"""From the arms of a spec to the arms that are run: grids multiplied out, free numbers solved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sparseattn.errors import PatternError, PlanError, StudyError
from sparseattn.study import arms
from sparseattn.study.reading import place
from sparseattn.study.solve import FREE, Realised, Target, solve
from sparseattn.study.spec import MATCHED, ArmSpec, StudySpec

__all__ = ["Arm", "Measure", "check_count", "check_doubles", "check_size", "resolve", "shapes"]


@dataclass(frozen=True)
class Arm:
    """An arm on one placement, with nothing left open.

    Attributes:
        name: What the report calls it.
        pattern: See `sparseattn.study.trial.TrialSpec`.
        layers: Where the pattern stands.
        target: What its `?` was solved for, such as `{"degree": 5}`; empty where it had none.
        realised: What it came to on training texts, for an arm that was solved.
        needs: The annotations that its pattern reads.
    """

    name: str
    pattern: str
    layers: str
    target: Mapping[str, float]
    realised: Mapping[str, float]
    needs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Measure:
    """Counts patterns on sample texts.

    Attributes:
        count: What a pattern comes to on a placement.
        highest: Tokens of the longest text.
    """

    count: Callable[[str, str], Realised]
    highest: int


def check_doubles(spec: StudySpec) -> None:
    """Makes sure that no list of a spec has a value twice: it would be the same trials.

    Raises:
        StudyError: One has; the message says which.
    """
    lists: dict[tuple[Any, ...], Sequence[Any]] = {("seeds",): spec.seeds}
    for index, arm in enumerate(spec.arms):
        at = ("arms", index)
        lists |= {(*at, "grid", name): values for name, values in arm.grid.items()}
        lists |= {(*at, "layers"): arm.layers, (*at, "sparsity"): arm.sparsity}
        if not isinstance(arm.degree, str):
            lists[(*at, "degree")] = arm.degree
    for where, values in lists.items():
        for position, value in enumerate(values):
            if value in values[:position]:
                raise StudyError(f"{place((*where, position))}: {value!r} is there twice")


def check_size(spec: StudySpec, most: int) -> None:
    """Makes sure that a grid is not larger than the user allows, before it is multiplied out.

    Raises:
        StudyError: It is.
    """
    cells = sum(
        math.prod(map(len, arm.grid.values())) * max(1, len(_aims(arm))) * len(arm.layers)
        for arm in spec.arms
    )
    check_count(cells * len(spec.seeds), most)


def check_count(trials: int, most: int) -> None:
    """See `check_size`."""
    if trials > most:
        raise StudyError(
            f"the grid has {trials:,} trials, more than --max-trials {most:,}; "
            "make it smaller or raise the limit"
        )


def shapes(arm: ArmSpec) -> list[str]:
    """The patterns of an arm, with some number in the place of a `?`.

    Raises:
        StudyError: One is neither `dense` nor a pattern.
        PatternError: One is wrong.
    """
    return [_shape(cell.pattern) for cell in _cells(arm)] if arm.pattern else []


def _shape(pattern: str) -> str:
    try:
        return arms.check(pattern.replace(FREE, "1"))
    except PatternError as error:
        try:
            return arms.check(pattern.replace(FREE, "2"))  # a number that 1 is too low for
        except PatternError:
            raise error from None


def resolve(spec: StudySpec, measure: Measure) -> list[Arm]:
    """Multiplies the grids out and solves the free numbers.

    Args:
        spec: The study.
        measure: Counts on the study's own training texts.

    Raises:
        StudyError: A pattern is wrong, a target cannot be reached, or nothing depends on the text
            for `matched_random` to be the control of; the message names the arm.
    """
    made: dict[str, list[Arm]] = {}
    # An arm that aims at the degree of another, and a control, come after what they look at.
    for index, arm in sorted(enumerate(spec.arms), key=lambda pair: _rank(pair[1])):
        try:
            if arm.matched_random is not None:
                made[arm.name] = list(_controls(arm, made))
            else:
                made[arm.name] = [_solved(cell, arm, measure, made) for cell in _cells(arm)]
        except (StudyError, PatternError, PlanError) as error:
            raise StudyError(f"arms[{index}] ({arm.name}): {error}") from None
    return [
        replace(one, needs=tuple(sorted(arms.needs(one.pattern))))
        for arm in spec.arms
        for one in made[arm.name]
    ]


def _rank(arm: ArmSpec) -> int:
    return 2 if arm.matched_random is not None else int(isinstance(arm.degree, str))


def _aims(arm: ArmSpec) -> list[Target]:
    if isinstance(arm.degree, str):
        return []
    degrees = [Target("degree", value) for value in arm.degree]
    return degrees + [Target("sparsity", value) for value in arm.sparsity]


def _cells(arm: ArmSpec) -> Iterator[Arm]:
    """The combinations of an arm; patterns may still have a `?`."""
    aims: list[Target | None] = [*_aims(arm)]
    if FREE in arm.pattern and arms.is_method(arm.pattern):
        raise StudyError(f"{arm.pattern} has no number to solve for; write it")
    for values in itertools.product(*arm.grid.values()):
        chosen = dict(zip(arm.grid, values, strict=True))
        pattern = arm.pattern
        for name, value in chosen.items():
            pattern = pattern.replace(f"{{{name}}}", str(value))
        if FREE not in pattern:
            pattern = arms.check(pattern)
        for aim in aims or [None]:
            told = [f"{name}={value}" for name, value in chosen.items()]
            told += [f"{aim.kind}={aim.value:g}"] if aim and len(aims) > 1 else []
            target: dict[str, float] = {aim.kind: aim.value} if aim else {}
            if tuple(arm.layers) != (":",) and (arms.is_method(pattern) or arms.is_plan(pattern)):
                raise StudyError(f"{pattern} says for every layer itself; leave out layers")
            for layers in (":",) if pattern == arms.DENSE else arm.layers:
                yield Arm(" ".join((arm.name, *told)), pattern, layers, target, {})


def _solved(cell: Arm, arm: ArmSpec, measure: Measure, made: Mapping[str, list[Arm]]) -> Arm:
    if FREE not in cell.pattern:
        return cell
    count = measure.count
    if isinstance(arm.degree, str):
        if arm.degree not in made:
            raise StudyError(f"arm {arm.degree!r} takes its own degree from another arm")
        like = made[arm.degree][0].pattern
        at = ":" if arms.is_plan(like) else cell.layers
        cell = replace(cell, target={"degree": round(count(like, at).degree, 4)})
    ((kind, value),) = cell.target.items()
    aim = Target("degree" if kind == "degree" else "sparsity", value)
    number, realised = solve(
        cell.pattern, aim, lambda text: count(text, cell.layers), measure.highest
    )
    pattern = arms.check(cell.pattern.replace(FREE, str(number)))
    return replace(cell, pattern=pattern, realised=asdict(realised))


def _controls(arm: ArmSpec, made: Mapping[str, list[Arm]]) -> Iterator[Arm]:
    every = arm.matched_random == "*"
    names = list(made) if every else [name for name in made if name == arm.matched_random]
    sources = [one for name in names for one in made[name]]
    several = every or len({one.name for one in sources}) > 1
    found = False
    for one in sources:
        pattern = arms.with_matched_random(one.pattern)
        if pattern is not None:
            found = True
            yield Arm(f"{MATCHED} {one.name}" if several else arm.name, pattern, one.layers, {}, {})
    if not found:
        where = "no arm looks" if every else f"arm {arm.matched_random!r} does not look"
        raise StudyError(f"{where} at the text, so there is nothing to be the control of")
