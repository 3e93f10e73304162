"""Pictures of learned degrees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseattn.degrees.discretize import Discretized
from sparseattn.palette import LIGHT, kind_of
from sparseattn.show import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_degrees", "draw_frontier"]

#: Rankings that have no kind, or the kind of one before them, by turns.
_OTHERS = tuple(zip(LIGHT.series[5:], ("X", "v", "h"), strict=True))

#: What a head without a marker has.
_NOTHING = {"off": "off: its own place alone", "global alone": "global tokens alone"}

#: Inches: the width of a figure, and the height of a layer in it.
_WIDTH, _ROW = 11, 0.4


def draw_degrees(
    found: Discretized, history: Sequence[dict[str, float]], sparsity: float
) -> Figure:
    """Draws what `Learned.draw` promises; `sparsity` is the measured one."""
    heights = (_ROW * max(6, len(found.chosen)) + 0.8, 3.0)
    figure = new_figure(_WIDTH, sum(heights) + 0.4)
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    _degrees(figure.add_subplot(grid[0, :]), found)
    _steps(figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1]), history, sparsity)
    return figure


def _degrees(axes: Any, found: Discretized) -> None:
    """A head a place: a marker for each kind that it uses, the larger the higher the degree."""
    candidates, chosen = found.costs.candidates, found.chosen.numpy()
    layers, heads, kinds = chosen.shape
    apart = 0.92 / kinds
    looks = _looks(candidates.names)
    widest = min(12.0, 66 * (_WIDTH - 1) * apart / heads)  # in points
    for index, name in enumerate(candidates.names):
        ranked = index < len(candidates.rankings)
        colour, marker = looks[index]
        rows, columns = np.nonzero(chosen[:, :, index])
        level = chosen[rows, columns, index] / (candidates.sizes[index] - 1)
        places = columns + apart * (index - (kinds - 1) / 2)
        sizes = widest * (0.45 + 0.55 * level) if ranked else np.full(len(rows), 5.0)
        axes.scatter(
            places, rows - 0.14, s=sizes**2, c=colour, marker=marker, linewidths=0,
            label=f"{name}: {found.shares[name]:.0%} of the pairs kept",
        )  # fmt: skip
        for row, column, place in zip(rows, columns, places, strict=True) if ranked else ():
            degree = candidates.degrees[index][chosen[row, column, index]]
            axes.annotate(
                f"{degree:g}", (place, row), (0, -12), textcoords="offset points", ha="center",
                fontsize=6.5, color=colour,
            )  # fmt: skip
    rows, columns = np.nonzero(~chosen.any(axis=-1))
    axes.scatter(columns, rows, s=14, c="#999999", marker="x", label=_NOTHING[found.nothing_else])
    always = f"{found.shares['always']:.0%} of the pairs kept are those that every head keeps"
    axes.set(xlabel=f"head\n{always}", ylabel="layer")
    axes.set_xlim(-0.5, heads - 0.5)
    axes.set_ylim(layers - 0.5, -0.5)
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers), [str(layer) for layer in found.costs.learned])
    axes.set_xticks(np.arange(heads + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    _legend(axes)


def _looks(names: Sequence[str]) -> list[tuple[str, str]]:
    """A colour and a marker for each: those of its kind, if no other before it has them."""
    looks: list[tuple[str, str]] = []
    spare = cycle(_OTHERS)
    for name in names:
        kind = kind_of(name)
        look = (kind.light, kind.marker)
        looks.append(next(spare) if kind.name == "other" or look in looks else look)
    return looks


def _legend(axes: Any) -> None:
    """Above the heads, with markers of one size."""
    shown = axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False
    )
    for handle in shown.legend_handles:
        handle.set_sizes([36])


def _steps(left: Any, right: Any, history: Sequence[dict[str, float]], sparsity: float) -> None:
    """Sparsity on the left, loss and temperature on the right."""
    steps = [entry["step"] for entry in history]
    left.plot(steps, [1 - entry["density"] for entry in history], label="expected")
    left.plot(steps, [1 - entry["target"] for entry in history], "--", label="target")
    left.axhline(sparsity, color="black", linewidth=0.8, label="of the plan, measured")
    left.set(title="Sparsity in the search phase", xlabel="step", ylabel="total sparsity")
    left.legend()
    right.plot(steps, [entry["loss"] for entry in history], color="tab:purple", label="loss")
    right.set(title="Task loss in the search phase", xlabel="step", ylabel="loss")
    other = right.twinx()
    temperature = [entry["temperature"] for entry in history]
    other.plot(steps, temperature, ":", color="gray", label="temperature")
    other.set_ylabel("temperature")
    right.legend(handles=[*right.lines, *other.lines])


def draw_frontier(rows: Sequence[dict[str, float]], score: str) -> Figure:
    """Draws a score of each phase against the measured sparsity, and the dense model's, if known.

    Args:
        rows: The columns of `frontier.csv`, a row a target.
        score: A metric, or the loss.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    sparsities = [row["measured_sparsity"] for row in rows]
    for phase, marker in (("search", "o"), ("discretized", "s"), ("final", "D")):
        values = [row[f"{phase}_{score}"] for row in rows]
        axes.plot(sparsities, values, marker=marker, label=phase)
    if (dense := rows[0].get(f"dense_{score}")) is not None:
        axes.axhline(dense, color="black", linestyle="--", linewidth=1, label="dense")
    axes.set(xlabel="measured sparsity", ylabel=score)
    axes.legend(title="phase")
    axes.grid(alpha=0.3)
    return figure
