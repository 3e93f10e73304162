"""What a study found, in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparseattn.report.comparison import Comparison, Question
from sparseattn.report.data import StudyData
from sparseattn.report.summary import ArmSummary, Summary
from sparseattn.report.text import (
    fraction,
    interval_told,
    learned,
    points,
    probability,
    spell,
    unit,
)
from sparseattn.study.arms import DENSE
from sparseattn.words import counted

#: Metrics of which one at least is 0 where all examples get one answer.
_CHANCE = ("mcc", "f1")

#: The loss that an arm must exclude to be named as kept.
_MARGIN = 0.05

#: Share of the whole scale from which on a detectable difference says nothing.
_HALF = 0.5


def findings(summary: Summary, asked: Sequence[Question]) -> list[str]:
    """How arms compare with the baseline, what was declared, and what could not be told."""
    base = [(each, each.comparison) for each in summary.arms if each.comparison]
    first = _against(summary, base) if base else _not_compared(summary)
    every = [each for _, each in base] + [each for one in asked for each in one.comparisons]
    declared = _declared(asked) if every or asked else ""
    untold = any(one.notes for one in asked)
    sentences = [learned_nothing(summary.data), first, declared, _open(every, untold)]
    return [sentence for sentence in sentences if sentence]


def learned_nothing(data: StudyData) -> str:
    """Says that no run of the baseline does better than a constant answer; else empty."""
    if data.reference is None:
        return ""
    runs = data.done_in(data.reference)
    if not any((runs[each] == 0).all() for each in _CHANCE if each in runs):
        return ""
    return (
        f"No run of {DENSE} does better than one answer for all examples: there is nothing "
        "yet that an arm could lose."
    )


def _not_compared(summary: Summary) -> str:
    data = summary.data
    if data.reference:
        return f"No arm could be compared with {DENSE}."
    if any(arm.name == DENSE for arm in data.groups):
        return f"No arm could be compared with {DENSE}: no trial of it finished."
    return f"The study has no arm {DENSE} to compare the others with."


def _against(summary: Summary, compared: Sequence[tuple[ArmSummary, Comparison]]) -> str:
    """How many arms differ from the baseline, and the one to look at."""
    data, verdicts = summary.data, [each.verdict for _, each in compared]
    lower, higher = verdicts.count("lower"), verdicts.count("higher")
    told = [
        f"{count} {'is' if count == 1 else 'are'} {word}"
        for count, word in ((lower, "lower"), (higher, "higher"))
        if count
    ]
    if none := len(verdicts) - lower - higher:
        told.append(f"for {none} no difference was found")
    counts = (
        f"Of {counted(len(verdicts), 'arm')} compared with {DENSE} in {data.headline}, "
        f"{' and '.join(told)}"
    )
    sparse = [pair for pair in compared if (pair[0].mean("sparsity") or 0) > 0]
    if not sparse or unit(data.headline) != 100:
        return f"{counts}."
    # An interval may be missing, and excludes nothing then.
    kept = [pair for pair in sparse if pair[1].result.low > -_MARGIN]
    if kept:
        best, found = max(kept, key=lambda pair: pair[0].mean("sparsity") or 0)
        which = "the sparsest arm whose interval excludes a loss of 5 points"
    else:
        best, found = max(sparse, key=lambda pair: pair[1].result.difference)
        which = (
            "no interval excludes a loss of 5 points; the best arm, which as the best of several "
            "may look too good,"
        )
    at = f"at sparsity {fraction(best.mean('sparsity'))}"
    return f"{counts}; {which} is {best.arm}, {at}: {_change(found)}."


def _change(each: Comparison) -> str:
    """A difference with its interval, and the runs that learned the task where some may not."""
    ends = interval_told(each.metric, each.result.low, each.result.high)
    ends = f" ({ends})" if ends else ""
    scale = " points" if unit(each.metric) == 100 else ""
    runs = [learned(each.metric, of) for of in each.learned or ()]
    counts = f"; runs that learned the task: {' against '.join(runs)}" if runs else ""
    return f"{points(each.metric, each.result.difference)}{scale}{ends}{counts}"


def _declared(asked: Sequence[Question]) -> str:
    """In how many of the declared comparisons a difference was found, and the largest."""
    tested = [each for one in asked for each in one.comparisons]
    if not asked:
        return "The study file declared no comparison: all of these are post hoc."
    if not tested:
        return "None of the declared comparisons could be made."
    before = [each for each in tested if each.declared]
    what, counted_ones = ("declared", before) if before else ("post hoc", tested)
    found = [each for each in counted_ones if each.differs]
    many = counted(len(counted_ones), f"{what} comparison")
    if not found:
        where = f"the one {what} comparison" if len(counted_ones) == 1 else f"any of {many}"
        return f"No difference was found in {where}."
    largest = max(found, key=lambda each: abs(each.result.difference))
    return (
        f"Of {many} a difference was found in {len(found)}; the largest: {largest.a} is "
        f"{largest.verdict} than {largest.b}, {_change(largest)}, p {probability(largest.p)} after "
        "Holm."
    )


def _open(every: Sequence[Comparison], untold: bool) -> str:
    """How large a difference may have been missed, where none was found.

    Args:
        every: All comparisons that were made.
        untold: Whether others could not be made.
    """
    pairs = {frozenset((each.a, each.b)): each for each in every if not each.differs}
    none = list(pairs.values())
    if not none:
        which = " that could be made" if untold else ""
        return f"A difference was found in every comparison{which}." if every else ""
    metric, known = none[0].metric, [each.result.detectable for each in none]
    sizes = sorted(size for size in known if not math.isnan(size))
    told = [size for size in sizes if unit(metric) != 100 or size < _HALF]
    if not told:
        return "Where no difference was found, the runs are too few to find even a large one."
    ends = list(dict.fromkeys(spell(metric, size) for size in (told[0], told[-1])))
    scale = " points" if unit(metric) == 100 else ""
    few = len(none) - len(told)
    rest = f"; in {few} of {len(none)} the runs are too few to tell" if few else ""
    which = ", depending on the comparison" if len(ends) > 1 else ""
    return (
        "Where no difference was found there may still be one: 80% of such studies would find it "
        f"only if it were at least {' to '.join(ends)}{scale}{which}{rest}."
    )
