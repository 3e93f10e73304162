"""Where the axes of figures end."""

from __future__ import annotations

import pytest

from sparseattn.report.data import Arm
from sparseattn.report.figures.axes import Point, limits


def point(mean: float, half: float, *values: float) -> Point:
    return Point(Arm("an arm", ":"), 50.0, mean, half, values, "")


def test_an_interval_does_not_stretch_the_axis_to_where_no_share_can_be() -> None:
    wide = [point(42.0, 60.5, 13.9, 55.3, 56.8), point(69.6, 0.9, 69.2, 69.7, 69.9)]
    low, high = limits(wide, "f1")
    assert -10 < low < 0
    assert 75 < high < 110


@pytest.mark.parametrize(("metric", "lowest"), [("mcc", -12.0), ("loss", 0.1)])
def test_values_are_seen_wherever_they_are(metric: str, lowest: float) -> None:
    low, high = limits([point(lowest + 1, 3.0, lowest, lowest + 2)], metric)
    assert low < lowest
    assert high > lowest + 2
