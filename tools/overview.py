"""The figure of docs/results.md: accuracy against sparsity, three tasks side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headline import OVER, Published
from matplotlib.figure import Figure

from sparseattn.drawing import Drawing, new_figure
from sparseattn.palette import Page
from sparseattn.report.figures import Marks, legend, points_of, scatter

__all__ = ["overview"]

#: The tasks and the ways to a plan that are drawn.
TASKS_DRAWN = ("kinds-mrpc", "kinds-squad", "kinds-sst2")
WAYS_DRAWN = ("union", "windows", "uniform", "bigbird")


def overview(studies: Mapping[str, Published]) -> Drawing:
    """Fixed and learned degrees at two targets, each task with a frame and an axis of its own."""
    frames = []
    for name in TASKS_DRAWN:
        task, targets = OVER[name]
        whole = studies[name].based
        points = {point.arm.address: point for point in points_of(whole)}
        drawn = [points[f"{way} s={target}@:"] for way in WAYS_DRAWN for target in targets]
        frames.append((task.split()[0], whole.data.headline, drawn, points["dense"]))
    every = [point for _, _, points, _ in frames for point in points]
    marks = Marks(point.arm for point in every)

    def draw(page: Page) -> Figure:
        figure = new_figure(10.8, 4.2)
        for place, (task, metric, points, base) in enumerate(frames, 1):
            axes: Any = figure.add_subplot(1, 3, place)
            axes.set_title(f"{task}, {metric.replace('f1', 'F1')}")
            scatter(axes, points, metric, marks, base, page)
            axes.set_xlabel("measured sparsity of all layers (%)")
        legend(figure, marks, every, frames[0][3], page)
        return figure

    words = [
        f"{task}: {'; '.join(p.words for p in (base, *points))}."
        for task, _, points, base in frames
    ]
    return Drawing("overview", "accuracy against sparsity, three tasks", " ".join(words), "", draw)
