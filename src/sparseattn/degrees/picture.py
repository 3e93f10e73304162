"""A picture of learned degrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparseattn.degrees.texts import state_of
from sparseattn.errors import MissingExtraError
from sparseattn.pattern import Joined, Pattern
from sparseattn.patterns.elastic import Elastic
from sparseattn.patterns.irregular import Irregular
from sparseattn.patterns.neighbor import Neighbor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparseattn.degrees.result import Learned

__all__ = ["draw", "new_figure", "radii"]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            'pictures need matplotlib: pip install "sparseattn[study]"'
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def draw(learned: Learned) -> Figure:
    """Draws degrees by layer and head, their distributions, and sparsity and loss over steps.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(11, 7.5)
    grid = figure.subplots(2, 2)
    _degrees(grid[0, 0], figure, learned)
    _distributions(grid[0, 1], figure, learned)
    _sparsity(grid[1, 0], learned)
    _loss(grid[1, 1], learned)
    figure.suptitle(
        f"Learned degrees: stated sparsity {learned.stated:.3f}, realised {learned.sparsity:.3f}, "
        f"windows alone {learned.window_sparsity:.3f}"
    )
    return figure


def _unit(learned: Learned) -> str:
    return "share of the length" if learned.menu.elastic else "tokens"


def radii(learned: Learned) -> NDArray[np.float64]:
    """The radius of each head in the hard plan; its mean over positions in an irregular one.

    Returns:
        In tokens, or shares of the length. Shape: [learned layers, heads].
    """
    state = state_of(learned.model)
    rows = []
    for layer, groups in enumerate(learned.plan.resolve(state.heads)):
        if layer in learned.layers:
            by_head = {head: _radius(pattern) for members, pattern in groups for head in members}
            rows.append([by_head[head] for head in range(state.heads[layer])])
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


def _degrees(axes: Any, figure: Any, learned: Learned) -> None:
    entries = np.asarray(learned.menu.entries, dtype=float)
    found = radii(learned)
    rank = np.interp(found, entries, np.arange(len(entries)))
    image = axes.imshow(rank, aspect="auto", cmap="viridis", vmin=0, vmax=len(entries) - 1)
    for (row, column), value in np.ndenumerate(found):
        dark = rank[row, column] < 0.6 * (len(entries) - 1)
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
        axes.text(
            column,
            row,
            shown,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    axes.set(title=f"Radius in the plan ({_unit(learned)})", xlabel="head", ylabel="layer")
    axes.set_yticks(range(len(learned.layers)), [str(layer) for layer in learned.layers])
    bar = figure.colorbar(image, ax=axes)
    bar.set_ticks(range(len(entries)), labels=[f"{entry:g}" for entry in entries])


def _distributions(axes: Any, figure: Any, learned: Learned) -> None:
    chances = learned.chances.double().mean(dim=1).numpy()
    image = axes.imshow(chances, aspect="auto", cmap="magma", vmin=0, vmax=1)
    labels = [f"{entry:g}" for entry in learned.menu.entries]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(learned.layers)), [str(layer) for layer in learned.layers])
    axes.set(
        title="Distribution after the soft phase, mean over heads",
        xlabel=f"radius ({_unit(learned)})",
        ylabel="layer",
    )
    figure.colorbar(image, ax=axes, label="chance")


def _sparsity(axes: Any, learned: Learned) -> None:
    steps = [entry["step"] for entry in learned.history]
    axes.plot(steps, [1 - entry["density"] for entry in learned.history], label="expected")
    axes.plot(steps, [1 - entry["target"] for entry in learned.history], "--", label="target")
    axes.axhline(learned.sparsity, color="black", linewidth=0.8, label="hard plan, held-out")
    axes.set(title="Sparsity in the soft phase", xlabel="step", ylabel="total sparsity")
    axes.legend()


def _loss(axes: Any, learned: Learned) -> None:
    steps = [entry["step"] for entry in learned.history]
    axes.plot(steps, [entry["loss"] for entry in learned.history], color="tab:purple", label="loss")
    axes.set(title="Task loss in the soft phase", xlabel="step", ylabel="loss")
    other = axes.twinx()
    temperature = [entry["temperature"] for entry in learned.history]
    other.plot(steps, temperature, ":", color="gray", label="temperature")
    other.set_ylabel("temperature")
    axes.legend(handles=[*axes.lines, *other.lines])
