"""Where the axes of figures end."""

from __future__ import annotations

import pytest

from sparseattn.report.data import Arm
from sparseattn.report.figures.axes import Point, limits
from sparseattn.report.figures.sparsity import _Scatter
from sparseattn.report.figures.theme import LIGHT, SERIES


def point(mean: float, half: float, *values: float, name: str = "an arm") -> Point:
    return Point(Arm(name, ":"), 50.0, mean, half, values, "")


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


def test_arms_that_share_a_colour_differ_in_their_marks() -> None:
    names = [f"arm {number}" for number in range(len(SERIES) + 1)]
    points = [point(50.0 + i, 0.0, 50.0 + i, name=name) for i, name in enumerate(names)]
    figure = _Scatter(points, "accuracy", None).draw(900, LIGHT)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == LIGHT["page"] for line in marks] == [False] * 8 + [True]
    slanted = [t.get_text() for t in figure.axes[0].texts if t.get_style() == "italic"]
    assert slanted == names[-1:]
