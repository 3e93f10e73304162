"""Pictures of learned degrees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.degrees.cost import Costs
from sparseattn.pattern import Joined, Pattern
from sparseattn.patterns.elastic import Elastic
from sparseattn.patterns.irregular import Irregular
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.plan import Plan
from sparseattn.show import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_degrees", "draw_frontier", "radii_of"]

Radii = NDArray[np.float64]


def radii_of(plan: Plan, costs: Costs) -> Radii:
    """The radius of each head in a plan; its mean over positions in an irregular one.

    In tokens, or shares of the length. Shape: [learned layers, heads].
    """
    layers = plan.resolve(costs.heads)
    rows = []
    for layer in costs.learned:
        by_head = {head: _radius(p) for members, p in layers[layer] for head in members}
        rows.append([by_head[head] for head in range(costs.heads[layer])])
    return np.asarray(rows)


def _radius(pattern: Pattern) -> float:
    if isinstance(pattern, Neighbor):
        return float(pattern.radius)
    if isinstance(pattern, Elastic):
        return pattern.share
    if isinstance(pattern, Irregular):
        return float(np.average(pattern.radii, weights=pattern.weights))
    assert isinstance(pattern, Joined), "a window, with or without global tokens"
    return _radius(pattern.left)


def draw_degrees(
    costs: Costs,
    radii: Radii,
    chances: Tensor,
    history: Sequence[dict[str, float]],
    sparsity: float,
) -> Figure:
    """Draws what `Learned.draw` promises; `sparsity` is the measured one, `radii` of `radii_of`."""
    figure = new_figure(11, 7.5)
    grid = figure.subplots(2, 2)
    unit = "share of the length" if costs.candidates.elastic else "tokens"
    _radii(grid[0, 0], figure, costs, radii, unit)
    _distributions(grid[0, 1], figure, costs, chances, unit)
    _steps(grid[1, 0], grid[1, 1], history, sparsity)
    return figure


def _radii(axes: Any, figure: Any, costs: Costs, radii: Radii, unit: str) -> None:
    entries = np.asarray(costs.candidates.entries, dtype=float)
    rank = np.interp(radii, entries, np.arange(len(entries)))
    image = axes.imshow(rank, aspect="auto", cmap="viridis", vmin=0, vmax=len(entries) - 1)
    for (row, column), value in np.ndenumerate(radii):
        dark = rank[row, column] < 0.6 * (len(entries) - 1)
        text = f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
        style = {"ha": "center", "va": "center", "fontsize": 7}
        axes.text(column, row, text, color="white" if dark else "black", **style)
    axes.set(title=f"Radius in the plan ({unit})", xlabel="head", ylabel="layer")
    axes.set_yticks(range(len(costs.learned)), [str(layer) for layer in costs.learned])
    bar = figure.colorbar(image, ax=axes)
    bar.set_ticks(range(len(entries)), labels=[f"{entry:g}" for entry in entries])


def _distributions(axes: Any, figure: Any, costs: Costs, chances: Tensor, unit: str) -> None:
    means = chances.double().mean(dim=1).numpy()
    image = axes.imshow(means, aspect="auto", cmap="magma", vmin=0, vmax=1)
    labels = [f"{entry:g}" for entry in costs.candidates.entries]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(costs.learned)), [str(layer) for layer in costs.learned])
    axes.set(
        title="Distribution after the search phase, mean over heads",
        xlabel=f"radius ({unit})",
        ylabel="layer",
    )
    figure.colorbar(image, ax=axes, label="chance")


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
    """Draws a score of each phase against the measured sparsity."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    sparsities = [row["measured_sparsity"] for row in rows]
    for phase, marker in (("search", "o"), ("discretized", "s"), ("final", "D")):
        values = [row[f"{phase}_{score}"] for row in rows]
        axes.plot(sparsities, values, marker=marker, label=phase)
    axes.set(xlabel="measured sparsity", ylabel=score)
    axes.legend(title="phase")
    axes.grid(alpha=0.3)
    return figure
