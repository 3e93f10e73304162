"""What the figures draw, and how."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sparseattn.palette import LIGHT
from sparseattn.report import ArmKey, summarise
from sparseattn.report.figures import Marks, Point, limits, placement_figure, sparsity_figure
from tests.report.fake import EFFECTS, changed, study


def point(mean: float, half: float, *values: float, name: str = "an arm") -> Point:
    return Point(ArmKey(name, ":"), 50.0, mean, (mean - half, mean + half), values, "")


def axes_of(drawing):
    return drawing.figure().axes[0]


def single_marks(axes, shapes: str = "os^D") -> list:
    """The marks of means, not the small dots of seeds."""
    return [line for line in axes.lines if line.get_marker() in tuple(shapes)]


def test_an_interval_does_not_stretch_the_axis_to_where_no_share_can_be() -> None:
    wide = [point(42.0, 60.5, 13.9, 55.3, 56.8), point(69.6, 0.9, 69.2, 69.7, 69.9)]
    low, high = limits(wide, "f1")
    assert 0 <= low < 13
    assert 75 < high <= 100


@pytest.mark.parametrize(("metric", "lowest"), [("mcc", -12.0), ("loss", 0.1)])
def test_values_are_seen_wherever_they_are(metric: str, lowest: float) -> None:
    low, high = limits([point(lowest + 1, 3.0, lowest, lowest + 2)], metric)
    assert low < lowest
    assert high > lowest + 2


def test_a_colour_means_one_family_in_all_figures_of_a_report() -> None:
    summary = summarise(study(seed=1))
    arm_of = {round(100 * each.metrics["accuracy"].value, 6): each.arm for each in summary.arms}
    colours: dict[str, set[str]] = {}
    for drawing in (sparsity_figure(summary), placement_figure(summary)):
        for line in single_marks(axes_of(drawing)):
            for value in {*line.get_xdata(), *line.get_ydata()}:
                if (arm := arm_of.get(round(float(value), 6))) and arm.layers:
                    colours.setdefault(arm.family, set()).add(line.get_color())
    assert sorted(map(len, colours.values())) == [1] * len(EFFECTS)
    assert len(set.union(*colours.values())) == len(EFFECTS)


def test_families_that_share_a_colour_are_filled_differently() -> None:
    names = [f"arm-{number}" for number in range(3 * len(LIGHT.series))]
    marks = Marks(ArmKey(name, ":") for name in names)
    looks = {(look["color"], look["fillstyle"]) for look in map(marks.of, names)}
    assert len(looks) == len(names)


def axes_at(**sparsity: float):
    """The axes of a study with two arms beside the baseline, at these sparsities."""
    data = study(layers=(":",), effects={"near": (0.0,), "far": (-1.0,)})
    data = changed(data, sparsity=data.rows["arm"].map({"dense": 0.0, **sparsity}))
    return axes_of(sparsity_figure(summarise(data)))


def test_points_stand_at_their_sparsity() -> None:
    axes = axes_at(near=0.8456, far=0.8473)
    places = [round(float(line.get_xdata()[0]), 6) for line in single_marks(axes)]
    assert places == [84.56, 84.73], "the baseline, far to the left, is the line across"
    left, right = axes.get_xlim()
    assert right - left >= 5.0, "nearly equal sparsities look alike"
    assert axes_at(near=0.995, far=0.998).get_xlim()[1] <= 102.0


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_one_or_two_seeds_are_dots_without_bars(seeds: int) -> None:
    axes = axes_of(sparsity_figure(summarise(study(seeds=seeds))))
    bars = [line for line in axes.lines if len(set(line.get_ydata())) == 2 and
            line.get_marker() == "None"]  # fmt: skip
    assert bool(bars) == (seeds == 3)
    dots = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == ".")
    assert dots == (8 * 3 if seeds == 3 else 0)
    marks = sum(len(line.get_xdata()) for line in single_marks(axes))
    assert marks == 8 * (1 if seeds == 3 else seeds)


def test_no_bar_spans_the_whole_axis() -> None:
    data = study(layers=(":",), effects={"steady": (0.1,), "wild": (0.1,)})
    wild = data.rows["arm"] == "wild"
    data = changed(data, accuracy=data.rows["accuracy"].where(~wild, data.rows["seed"] * 0.4))
    axes = axes_of(sparsity_figure(summarise(data)))
    low, high = axes.get_ylim()
    bars = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    assert bars
    assert not [ends for ends in bars if min(ends) <= low and max(ends) >= high]


def test_cells_of_a_grid_share_a_colour_and_are_joined() -> None:
    data = study(layers=(":",), effects={f"learned s=0.{n}": (n / 9,) for n in (7, 8)})
    shares = data.rows["arm"].map(lambda name: float(name[-3:]) if "=" in name else 0.0)
    drawing = sparsity_figure(summarise(changed(data, sparsity=shares)))
    lines = [[round(float(x), 6) for x in line.get_xdata()] for line in axes_of(drawing).lines]
    assert [70.0, 80.0] in lines, "from the densest to the sparsest"
    (legend,) = drawing.figure().legends
    assert [text.get_text() for text in legend.get_texts()] == ["learned", "layers: all", "dense"]


def test_files_are_whole_whatever_names_hold(tmp_path) -> None:
    data = study({"名前 \x00\x1b[31m 🙂 $x_{$": (0.1, 0.4), "a" * 80: (0.1, 0.3)}, examples=60)
    summary = summarise(data)
    for drawing in (sparsity_figure(summary), placement_figure(summary)):
        light, dark, png = drawing.write(tmp_path)
        for path, page in ((light, "#ffffff"), (dark, "#14181d")):
            ElementTree.fromstring(path.read_text(encoding="utf-8"))
            assert f"fill: {page}" in path.read_text(encoding="utf-8")
        assert png.read_bytes().startswith(b"\x89PNG")
        assert "at sparsity" in light.read_text(encoding="utf-8")
