"""The result of comparing two arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: The level at which a difference is significant.
LEVEL = 0.05

#: How often a difference of the detectable size would be found.
POWER = 0.8


@dataclass(frozen=True)
class TestResult:
    """The difference `a - b` of a metric between two arms, and its test.

    Attributes:
        difference: In the metric's own unit, a fraction for accuracy.
        low: The lower end of the 95% interval.
        high: The upper end.
        p: The p-value, not yet corrected for other comparisons.
        detectable: The smallest true difference that a study like this one would find in `POWER`
            of the cases, at `LEVEL` over the number of comparisons in the table.
        test: The name of the test.
        examples: Evaluation examples that both arms saw.
        caveat: What the test does not cover; may be empty.
        clusters: How many groups of examples were taken together; 0 where each example counts by
            itself.
    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    difference: float
    low: float
    high: float
    p: float
    detectable: float
    test: str
    examples: int
    caveat: str = ""
    clusters: int = 0


def fewest_examples(level: float) -> int:
    """How many examples, all in favour of one arm, an exact sign test needs at this level.

    >>> fewest_examples(0.05)
    6
    """
    return math.ceil(1 - math.log2(level))
