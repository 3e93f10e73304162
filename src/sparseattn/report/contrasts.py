"""The comparisons that a study declared before it was run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sparseattn.errors import StudyError
from sparseattn.report.comparison import Comparison, compare
from sparseattn.report.data import Arm, StudyData
from sparseattn.report.text import points
from sparseattn.stats import LEVEL, holm

__all__ = ["Contrast", "Question", "questions"]

#: Comparisons that an answer names.
_SAID = 4


@dataclass(frozen=True)
class Contrast:
    """One of them.

    Attributes:
        a: The first arm.
        b: The second.
        comparison: What came out; the reason if the arms could not be compared.
        p: Its p-value, corrected for all comparisons of its question (Holm).
    """

    a: Arm
    b: Arm
    comparison: Comparison | str
    p: float | None = None

    @property
    def verdict(self) -> str:
        """Which arm is better, in a word or two."""
        if isinstance(self.comparison, str) or self.p is None:
            return "not compared"
        if self.p >= LEVEL:
            return "no difference found"
        return "higher" if self.comparison.outcome.difference > 0 else "lower"

    @property
    def words(self) -> str:
        """The two arms, which is better, and by how much."""
        if isinstance(self.comparison, str):
            return f"{self.a} and {self.b} were not compared"
        change = points(self.comparison.metric, self.comparison.outcome.difference)
        return f"{self.a} is {self.verdict} than {self.b} ({change})"


@dataclass(frozen=True)
class Question:
    """A question that a study declared.

    Attributes:
        text: The question; empty where the study has but one.
        contrasts: The comparisons that answer it.
        notes: Why others could not be made: no trial of an arm has finished, or two arms have no
            placement in common.
    """

    text: str
    contrasts: tuple[Contrast, ...]
    notes: tuple[str, ...]

    @property
    def answer(self) -> str:
        """What came out, in a sentence."""
        called = [each for each in self.contrasts if each.verdict in ("higher", "lower")]
        tested = [each for each in self.contrasts if each.verdict != "not compared"]
        if not tested:
            return "No comparison could be made."
        said = "; ".join(each.words for each in called[:_SAID])
        more = f" and {len(called) - _SAID} more" if len(called) > _SAID else ""
        none = len(tested) - len(called)
        if not called:
            where = "the one comparison" if none == 1 else f"any of {none:,} comparisons"
            return f"No difference was found in {where}."
        rest = (
            f"; no difference was found in {none:,} of {len(tested):,} comparisons" if none else ""
        )
        return f"{said}{more}{rest}."


def questions(data: StudyData) -> list[Question]:
    """Compares what a study declared, corrected for the number of comparisons of each question.

    A name without layers stands for all placements of an arm, and for all cells of its grid: they
    are compared one by one with those of the other arm.

    Args:
        data: The study.
    """
    return [_question(data, text, declared) for text, declared in data.contrasts.items()]


def _question(data: StudyData, text: str, declared: Sequence[tuple[str, str]]) -> Question:
    notes: list[str] = []
    pairs: dict[tuple[Arm, Arm], None] = {}
    for a, b in declared:
        try:
            pairs |= dict.fromkeys(_pairs(data, a, b))
        except StudyError as error:
            notes.append(str(error))
    made = [Contrast(a, b, _compared(data, a, b, len(pairs))) for a, b in pairs]
    known = [each.comparison.outcome.p for each in made if isinstance(each.comparison, Comparison)]
    corrected = iter(holm(known)) if known else iter(())
    done = (
        replace(each, p=next(corrected)) if isinstance(each.comparison, Comparison) else each
        for each in made
    )
    return Question(text, tuple(done), tuple(notes))


def _compared(data: StudyData, a: Arm, b: Arm, comparisons: int) -> Comparison | str:
    try:
        return compare(data, a, b, comparisons)
    except StudyError as error:
        return str(error)


def _pairs(data: StudyData, a: str, b: str) -> Iterator[tuple[Arm, Arm]]:
    left, right = _cells(data, a), _cells(data, b)
    found = False
    for (cell, layers), one in left.items():
        for (other, place), two in right.items():
            same_cell = cell == other or not cell or not other
            # The dense arm has no layers of its own, and is compared with every placement.
            same_place = layers == place or not layers or not place or "@" in a or "@" in b
            if one != two and same_cell and same_place:
                found = True
                yield one, two
    if not found:
        raise StudyError(f"{a!r} and {b!r} have no placement and no grid cell in common")


def _cells(data: StudyData, text: str) -> dict[tuple[str, str], Arm]:
    """Arms by what follows their name, and their layers."""
    name, at, layers = text.partition("@")
    found = {
        (arm.name[len(name) :], arm.layers): arm
        for arm in data.groups
        if f"{arm.name} ".startswith(f"{name} ") and (not at or arm.layers == layers)
    }
    # `matched_random x` is an arm of its own, not a cell of another one.
    exact = {key: arm for key, arm in found.items() if not key[0]}
    cells = {key: arm for key, arm in found.items() if "=" in key[0]}
    if not (exact or cells):
        raise StudyError(f"{text!r} is not compared: it has no trial yet")
    return exact or cells
