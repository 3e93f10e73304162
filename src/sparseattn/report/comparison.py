"""Arms of a study against each other, on the same examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sparseattn.errors import StudyError
from sparseattn.report.data import StudyData
from sparseattn.report.evidence import read, test_difference
from sparseattn.report.text import detectable, interval_told, learned, points, probability, spell
from sparseattn.stats import (
    LEVEL,
    LearnedRuns,
    Mean,
    TestResult,
    benjamini_hochberg,
    holm,
    mean_interval,
)
from sparseattn.study.arms import DENSE, ArmKey
from sparseattn.words import counted

Pair = tuple[ArmKey, ArmKey]

#: Arms that tables and figures show; the rest is counted, and is in the results file.
SHOWN = 60

#: Differences that the answer to a question names.
_NAMED = 4


@dataclass(frozen=True)
class Comparison:
    """Two arms, compared as one of the comparisons of a table.

    Attributes:
        metric: The metric that is compared.
        a: The first arm.
        b: The second arm.
        comparisons: How many comparisons the table holds.
        table: What the table compares, in words, such as `with dense`; empty if the pair stands
            alone.
        result: The difference `a - b` and its test.
        means: The mean of each arm's trials that were compared.
        p: The p-value after Holm's correction for the comparisons of the table.
        learned: The runs of each arm that learned the task; None where runs have one mode.
        q: The q-value after Benjamini and Hochberg for all comparisons of a page; None where no
            page was made.
        declared: Whether the study named this pair before its first trial; else it is post hoc.
    """

    metric: str
    a: ArmKey
    b: ArmKey
    comparisons: int
    table: str
    result: TestResult
    means: tuple[Mean, Mean]
    p: float
    learned: tuple[LearnedRuns, LearnedRuns] | None = None
    q: float | None = None
    declared: bool = False

    @property
    def asked(self) -> str:
        """When the pair was chosen: `declared` or `post hoc`."""
        return "declared" if self.declared else "post hoc"

    @property
    def verdict(self) -> str:
        """`higher` or `lower`, as the first arm is; `none` if no difference was found."""
        if self.p >= LEVEL:
            return "none"
        return "higher" if self.result.difference > 0 else "lower"

    @property
    def differs(self) -> bool:
        """Whether a difference was found."""
        return self.p < LEVEL

    @property
    def detectable(self) -> str:
        """The smallest difference that would have been found, where none was; see `detectable`."""
        return "" if self.differs else detectable(self.metric, self.result.detectable)

    @property
    def turned(self) -> Comparison:
        """The same with the second arm first."""
        low, high, difference = -self.result.high, -self.result.low, -self.result.difference
        result = replace(self.result, difference=difference, low=low, high=high)
        learned = (self.learned[1], self.learned[0]) if self.learned else None
        means = (self.means[1], self.means[0])
        return replace(self, a=self.b, b=self.a, result=result, means=means, learned=learned)

    def __str__(self) -> str:
        """The result in sentences."""
        result, counts = self.result, sorted({mean.count for mean in self.means})
        values = [spell(self.metric, mean.value) for mean in self.means]
        seeds = f"{' and '.join(map(str, counts))} {'seed' if counts == [1] else 'seeds'}"
        clusters = f" in {counted(result.clusters, 'cluster')}" if result.clusters else ""
        ends = interval_told(self.metric, result.low, result.high)
        ends = f"{ends}, " if ends else ""
        sentences = [
            f"{self.metric}: {self.a} {values[0]}, {self.b} {values[1]}.",
            f"{'A' if self.differs else 'No'} difference was found: "
            f"{points(self.metric, result.difference)} points, {ends}"
            f"p {probability(self.p)}, {self._corrected(result)} ({result.test}; "
            f"{seeds}, {counted(result.examples, 'example')}{clusters}).",
        ]
        if self.learned:
            each = zip((self.a, self.b), self.learned, strict=True)
            told = ", ".join(f"{learned(self.metric, of)} of {arm}" for arm, of in each)
            sentences.append(f"Runs that learned the task: {told}.")
        if not self.differs and not math.isnan(result.detectable):
            sentences.append(f"Detectable in 80% of such studies: {self.detectable}.")
        if result.caveat:
            sentences.append(f"Note: {result.caveat}.")
        return " ".join(sentences)

    def _corrected(self, result: TestResult) -> str:
        if self.comparisons == 1:
            return "not corrected for other comparisons"
        table = f"the {self.comparisons} comparisons {self.table}"
        return f"corrected for {table} after Holm ({probability(result.p)} before)"


def compare(data: StudyData, arm_a: str | ArmKey, arm_b: str | ArmKey) -> Comparison:
    """Compares two arms by the study's main metric.

    A pair that stands in a table of the report, among the comparisons that the study declared or
    those with the baseline, is answered as there: with the same p-value and the same detectable
    difference. Any other pair stands alone.

    Args:
        data: The study.
        arm_a: A name, `name@layers`, or the arm itself.
        arm_b: Likewise.

    Raises:
        StudyError: An arm is unknown or ambiguous, has no finished trial, or the arms were not
            evaluated on the same examples.
    """
    a, b = (arm if isinstance(arm, ArmKey) else data.find(arm) for arm in (arm_a, arm_b))
    if a == b:
        raise StudyError(f"cannot compare arm {a.address!r} with itself; name two arms")
    tables = _tables(data, a, b)
    pairs, table = next(each for each in tables if (a, b) in each[0] or (b, a) in each[0])
    pair = (a, b) if (a, b) in pairs else (b, a)
    made, reasons = compare_pairs(data, pairs, table)
    if pair in reasons:
        raise StudyError(reasons[pair])
    return made[pair] if pair == (a, b) else made[pair].turned


def compare_pairs(
    data: StudyData, pairs: Sequence[Pair], table: str
) -> tuple[dict[Pair, Comparison], dict[Pair, str]]:
    """Compares the pairs of one table, corrected for their number.

    Args:
        data: The study.
        pairs: The arms of each comparison.
        table: What the table compares, in words.

    Returns:
        The comparisons, and why others could not be made.
    """
    # An arm that many are compared with is read once; the others are not kept.
    reading = lru_cache(maxsize=2)(lambda arm: read(data, arm))
    metric, at = data.headline, data.threshold
    made: dict[Pair, Comparison] = {}
    reasons: dict[Pair, str] = {}
    for a, b in pairs:
        try:
            result, of_a, of_b = test_difference(
                metric, data.task, reading(a), reading(b), len(pairs), at
            )
        except StudyError as error:
            reasons[a, b] = str(error)
            continue
        means, runs = (mean_interval(of_a), mean_interval(of_b)), None
        if at is not None:
            runs = LearnedRuns.among(of_a, at), LearnedRuns.among(of_b, at)
        made[a, b] = Comparison(metric, a, b, len(pairs), table, result, means, result.p, runs)
    corrected = zip(made.items(), holm([each.result.p for each in made.values()]), strict=True)
    return {pair: replace(each, p=p) for (pair, each), p in corrected}, reasons


@dataclass(frozen=True)
class Question:
    """A question that a study declared before it was run.

    Attributes:
        text: The question; empty if the study did not word it.
        comparisons: Those that answer it.
        notes: Why others could not be made: no trial of an arm has finished, two arms have no
            placement in common or were evaluated on other examples.
    """

    text: str
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """The question, ending in a sign that an answer may follow."""
        text = self.text or "Declared comparisons"
        return text if text[-1] in "?.!:" else f"{text}:"

    @property
    def answer(self) -> str:
        """The result in a sentence."""
        if not self.comparisons:
            return "No comparison could be made."
        differing = [each for each in self.comparisons if each.differs]
        none = len(self.comparisons) - len(differing)
        late = "" if any(each.declared for each in self.comparisons) else "post hoc "
        if not differing:
            where = (
                f"the one {late}comparison" if none == 1 else f"any of {none:,} {late}comparisons"
            )
            return f"No difference was found in {where}."
        named = "; ".join(map(_told, differing[:_NAMED]))
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        rest = f"; no difference was found in {none:,} of {len(self.comparisons):,} comparisons"
        return f"{named}{more}{rest if none else ''}."


def _told(each: Comparison) -> str:
    """A difference that was found."""
    change = points(each.metric, each.result.difference)
    late = "" if each.declared else ", post hoc"
    return f"{each.a} is {each.verdict} than {each.b} ({change}{late})"


def questions(data: StudyData) -> list[Question]:
    """Compares what a study declared, corrected for the number of comparisons of each question.

    A name without layers stands for all placements of an arm, and for all cells of its grid: they
    are compared one by one with those of the other arm.
    """
    made = []
    for text in data.contrasts:
        pairs, notes = _declared(data, text)
        compared, reasons = compare_pairs(data, list(pairs), _words(text))
        told = tuple(replace(each, declared=pairs[pair]) for pair, each in compared.items())
        notes += [f"{a} and {b} are not compared: {why}" for (a, b), why in reasons.items()]
        made.append(Question(text, told, tuple(notes)))
    return made


def over_page(tables: Sequence[Sequence[Comparison]]) -> list[tuple[Comparison, ...]]:
    """The same tables with the q-value of each comparison, over all that a page shows.

    A comparison that stands in two tables counts once.
    """
    found = {_what(each): each.result.p for table in tables for each in table}
    q = dict(zip(found, benjamini_hochberg(list(found.values())), strict=True))
    return [tuple(replace(each, q=q[_what(each)]) for each in table) for table in tables]


def _what(each: Comparison) -> tuple[frozenset[ArmKey], float, float]:
    """What tells comparisons of one page apart, which may be of several studies."""
    return frozenset((each.a, each.b)), abs(each.result.difference), each.result.p


def baseline_pairs(data: StudyData, shown: int = SHOWN) -> list[Pair]:
    """The first arms of a study, each with its baseline; without arms of which no trial finished.

    The arms are taken in the study's own order: a choice by their results would make the
    correction for the number of comparisons wrong.
    """
    arms, base = list(data.groups)[:shown], data.reference
    return [(arm, base) for arm in arms if base and arm != base and len(data.done_in(arm))]


def declared_pairs(data: StudyData) -> set[frozenset[ArmKey]]:
    """The pairs that a study named before its first trial, whichever arm is first."""
    known = [_declared(data, text)[0] for text in data.contrasts]
    return {frozenset(pair) for each in known for pair, before in each.items() if before}


def _tables(data: StudyData, a: ArmKey, b: ArmKey) -> Iterator[tuple[list[Pair], str]]:
    """The pairs of each table of the report and what it compares; two arms alone at the end."""
    for text in data.contrasts:
        yield list(_declared(data, text)[0]), _words(text)
    yield baseline_pairs(data), f"with {DENSE}"
    # The same order whichever is named first: what is detectable is drawn at random.
    yield [(a, b) if list(data.groups).index(a) > list(data.groups).index(b) else (b, a)], ""


def _words(question: str) -> str:
    return f'of "{question}"' if question else "that the study declared"


def _declared(data: StudyData, question: str) -> tuple[dict[Pair, bool], list[str]]:
    """The pairs of a question, each with whether it is not post hoc; why others were not found."""
    pairs: dict[Pair, bool] = {}
    notes: list[str] = []
    added = {tuple(pair) for pair in data.added.get(question, ())}
    for a, b in data.contrasts[question]:
        try:
            for pair in _pairs(data, a, b):
                pairs[pair] = pairs.get(pair, False) or (a, b) not in added
        except StudyError as error:
            notes.append(str(error))
    return pairs, notes


def _pairs(data: StudyData, a: str, b: str) -> Iterator[Pair]:
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


def _cells(data: StudyData, text: str) -> dict[tuple[str, str], ArmKey]:
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
