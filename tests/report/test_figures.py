"""What the figures draw, and how."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_rgba

import sparseattn as sa
from sparseattn.errors import StudyError
from sparseattn.palette import DARK, LIGHT
from sparseattn.report import ArmKey, questions, summarise
from sparseattn.report.figures import (
    Marks,
    Point,
    learned_figure,
    limits,
    placement_figure,
    sparsity_figure,
)
from sparseattn.report.forest import forest_figure
from sparseattn.report.summary import over_summary
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


def test_lines_of_two_factors_do_not_cross_over() -> None:
    data = study({f"mix n={n} r={r}": (0.2,) for n in (0, 1) for r in (2, 4)}, layers=(":",))
    shares = {"dense": 0.0, "mix n=0 r=2": 0.9, "mix n=1 r=2": 0.8, "mix n=0 r=4": 0.8}
    shares["mix n=1 r=4"] = 0.7
    drawing = sparsity_figure(summarise(changed(data, sparsity=data.rows["arm"].map(shares))))
    joined = [line.get_xdata() for line in axes_of(drawing).lines if line.get_linestyle() == "-"]
    told = [[round(float(x)) for x in xs] for xs in joined]
    assert [xs for xs in told if len(set(xs)) > 1] == [[80, 90], [70, 80]]


def test_files_are_whole_whatever_names_hold(tmp_path) -> None:
    data = study({"名前 \x00\x1b[31m 🙂 $x_{$": (0.1, 0.4), "a" * 80: (0.1, 0.3)}, examples=60)
    summary = summarise(data)
    for drawing in (
        sparsity_figure(summary),
        placement_figure(summary),
        forest_figure(summary, []),
    ):
        light, dark, png = drawing.write(tmp_path)
        for path, page in ((light, "#ffffff"), (dark, "#14181d")):
            ElementTree.fromstring(path.read_text(encoding="utf-8"))
            assert f"fill: {page}" in path.read_text(encoding="utf-8")
        assert png.read_bytes().startswith(b"\x89PNG")
        said = light.read_text(encoding="utf-8")
        assert "at sparsity" in said or "against dense" in said


CONTRASTS = {"Does it <i>matter</i> which?": [("neighbor", "similarity"), ("neighbor", "random")]}


def forest_of(data):
    return forest_figure(*over_summary(summarise(data), questions(data)))


def test_the_forest_has_each_comparison_with_its_interval_and_seeds() -> None:
    added = {next(iter(CONTRASTS)): [("neighbor", "random")]}
    data = replace(study(seed=1), contrasts=CONTRASTS, added=added)
    drawing = forest_of(data)
    axes = axes_of(drawing)
    (asked,) = questions(data)
    rows = data.rows.set_index(["arm", "layers", "seed"])["accuracy"]
    marks = [line for line in axes.lines if line.get_marker() in ("D", "o")]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] > 0]
    bars = [line for line in bars if line.get_marker() == "None"]
    assert len(marks) == len(dots) == len(bars) == len(asked.comparisons) == 4
    low, high = axes.get_xlim()
    for each, mark, dot, bar in zip(asked.comparisons, marks, dots, bars, strict=True):
        assert mark.get_xdata()[0] == pytest.approx(100 * each.result.difference)
        assert list(bar.get_xdata()) == pytest.approx(
            [100 * each.result.low, 100 * each.result.high]
        )
        seeds = [
            100 * (rows[each.a.name, each.a.layers, s] - rows[each.b.name, each.b.layers, s])
            for s in range(3)
        ]
        assert list(dot.get_xdata()) == pytest.approx(seeds)
        assert low < min(seeds)
        assert max(seeds) < high
        assert mark.get_marker() == ("D" if each.differs else "o")
        filled = mark.get_markerfacecolor() != LIGHT.page
        assert filled == each.declared == (each.b.name == "similarity")
    said = [text.get_text() for text in axes.texts]
    assert "Does it <i>matter</i> which?" in said
    shown = " ".join(said)
    for each in asked.comparisons:
        assert str(each.a) in shown
        assert f"{100 * each.result.difference:+.1f} (".replace("-", "−") in shown
    for words in ("post hoc", "declared", "p ", "q "):
        assert words in drawing.description


def test_a_forest_without_any_interval_shows_the_means() -> None:
    data = replace(study(examples=60), contrasts=CONTRASTS)
    (asked,) = questions(data)
    bare = [
        replace(each, result=replace(each.result, low=math.nan, high=math.nan))
        for each in asked.comparisons
    ]
    drawing = forest_figure(summarise(data), [replace(asked, comparisons=bare)])
    low, high = axes_of(drawing).get_xlim()
    assert all(low < 100 * each.result.difference < high for each in bare)


def test_without_contrasts_the_forest_has_the_baseline() -> None:
    drawing = forest_of(study())
    marks = [line for line in axes_of(drawing).lines if line.get_marker() in ("D", "o")]
    assert len(marks) == 8
    assert "comparisons with dense" in drawing.title
    assert "post hoc" in drawing.description
    assert forest_of(study(effects={}, examples=40)) is None


def test_a_forest_of_runs_that_agree_has_an_axis() -> None:
    data = study({"neighbor": (0.1, 0.2)}, examples=40)
    same = data.predictions(data.rows["digest"][0])
    data = changed(data, accuracy=same["score"].mean())
    low, high = axes_of(forest_of(replace(data, predictions=lambda _: same))).get_xlim()
    assert low < -0.01 < 0.01 < high


def test_a_forest_of_very_many_says_what_it_leaves_out() -> None:
    effects = {f"arm {number}": (0.1, 0.2) for number in range(40)}
    names = [(f"arm {number}", "arm 0") for number in range(1, 40)]
    data = replace(study(effects, seeds=2, examples=40), contrasts={"": names})
    drawing = forest_of(data)
    assert "18 more comparisons are not drawn." in drawing.caption
    assert drawing.figure().get_figheight() < 25


@pytest.mark.parametrize("dense", [0.93, None])
def test_the_frontier_of_what_was_learned(dense) -> None:
    """A line a phase, the dense model across, all in percent; what was not measured is left out."""
    rows = [
        {"measured_sparsity": x, "search_f1": 0.9, "discretized_f1": 0.8, "final_f1": final}
        for x, final in ((0.5, 0.85), (0.7, math.nan), (0.6, 0.84))
    ]
    for row in rows:
        row |= {} if dense is None else {"dense_f1": dense}
    drawing = learned_figure(rows)
    axes = axes_of(drawing)
    phases = ("search", "discretized", "final")
    (legend,) = drawing.figure().legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [*phases, *(["dense"] if dense else [])]
    lines = [line for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    found = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines]
    assert found == [
        [(50, 90), (60, 90), (70, 90)],
        [(50, 80), (60, 80), (70, 80)],
        [(50, 85), (60, 84)],
    ]
    across = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in across] == ([{93}] if dense else [])
    assert "final: 84.0 at sparsity 60.0%" in drawing.description


def test_plots_are_those_of_the_report() -> None:
    data = replace(study(examples=60), contrasts=CONTRASTS)
    frontier, forest = sa.plots.frontier(data), sa.plots.forest(summarise(data), dark=True)
    assert frontier.axes[0].get_ylabel() == "accuracy"
    assert forest.get_facecolor() == to_rgba(DARK.page)
    with pytest.raises(StudyError, match="both a metric and a sparsity"):
        sa.plots.frontier(changed(data, sparsity=float("nan")))
    with pytest.raises(StudyError, match=r"study"):
        sa.plots.forest("/nowhere")
