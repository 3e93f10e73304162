"""Two arms of a study, on the same examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparseattn.errors import StudyError
from sparseattn.report.data import Arm, StudyData
from sparseattn.report.evidence import Evidence, read, test_difference
from sparseattn.report.text import interval, points, probability, spell
from sparseattn.stats import LEVEL, Mean, Outcome, mean_interval

__all__ = ["Comparison", "compare", "compare_all"]


@dataclass(frozen=True)
class Comparison:
    """Two arms compared.

    Attributes:
        metric: What is compared.
        a: The first arm.
        b: The second arm.
        mean_a: The mean of its trials that were compared.
        mean_b: Likewise.
        outcome: The difference `a - b` and its test.
    """

    metric: str
    a: Arm
    b: Arm
    mean_a: Mean
    mean_b: Mean
    outcome: Outcome

    @property
    def differs(self) -> bool:
        """Whether a difference is called, without a correction for other comparisons."""
        return self.outcome.p < LEVEL

    def __str__(self) -> str:
        """The result in sentences."""
        outcome, metric = self.outcome, self.metric
        of_a, of_b = (spell(metric, mean.value) for mean in (self.mean_a, self.mean_b))
        counts = sorted({self.mean_a.count, self.mean_b.count})
        found = (
            f"{'A' if self.differs else 'No'} difference was found: "
            f"{points(metric, outcome.difference)} points, "
            f"95% interval {interval(metric, outcome.low, outcome.high)}, "
            f"p {probability(outcome.p)}"
        )
        lines = [
            f"{metric}: {self.a} {of_a}, {self.b} {of_b}.",
            f"{found}, not corrected for other comparisons ({outcome.test}; "
            f"{' and '.join(map(str, counts))} "
            f"{'seed' if counts == [1] else 'seeds'}, {outcome.examples:,} examples).",
        ]
        if not self.differs:
            size = spell(metric, outcome.detectable)
            lines.append(f"A true difference of {size} points would be found 4 times in 5.")
        return " ".join([*lines, *([f"Note: {outcome.caveat}."] if outcome.caveat else [])])


def compare(
    data: StudyData, arm_a: str | Arm, arm_b: str | Arm, comparisons: int = 1
) -> Comparison:
    """Compares two arms by the study's main metric.

    Args:
        data: The study.
        arm_a: A name, `name@layers`, or the arm itself.
        arm_b: Likewise.
        comparisons: How many comparisons the table holds that this one is for.

    Raises:
        StudyError: An arm is unknown or ambiguous, has no finished trial, or the arms were not
            evaluated on the same examples.
    """
    a, b = (arm if isinstance(arm, Arm) else data.find(arm) for arm in (arm_a, arm_b))
    if a == b:
        raise StudyError(f"cannot compare arm {a.address!r} with itself; name two arms")
    return _compared(data.headline, read(data, a), read(data, b), comparisons)


def compare_all(data: StudyData, arms: Iterable[Arm]) -> dict[Arm, Comparison | str]:
    """Compares arms with the study's baseline.

    Args:
        data: The study.
        arms: Which ones; the baseline itself and arms without a finished trial are left out.

    Returns:
        The comparison of each arm, or the reason why there is none.
    """
    base = data.reference
    chosen = [arm for arm in arms if arm != base and len(data.done_in(arm))]
    if base is None or not chosen:
        return {}
    try:
        against = read(data, base)
    except StudyError as error:
        return dict.fromkeys(chosen, str(error))
    made: dict[Arm, Comparison | str] = {}
    for arm in chosen:
        try:
            made[arm] = _compared(data.headline, read(data, arm), against, len(chosen))
        except StudyError as error:
            made[arm] = str(error)
    return made


def _compared(metric: str, a: Evidence, b: Evidence, comparisons: int) -> Comparison:
    outcome, of_a, of_b = test_difference(metric, a, b, comparisons)
    return Comparison(metric, a.arm, b.arm, mean_interval(of_a), mean_interval(of_b), outcome)
