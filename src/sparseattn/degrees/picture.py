"""Drawings of learned degrees, and of how much attention of each head falls on a pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseattn.causes import kind
from sparseattn.degrees.discretize import Discretized
from sparseattn.drawing import Drawing, new_figure
from sparseattn.palette import KINDS, Page, kind_of
from sparseattn.pattern import parse
from sparseattn.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparseattn.degrees.probe import ProbeResult
    from sparseattn.degrees.result import Learned

#: Marks of rankings that have no kind, or the kind of one before them, by turns.
_OTHERS = ("X", "v", "h")

#: What a head without a marker has.
_NOTHING = {"off": "off: its own place alone", "global alone": "global tokens alone"}

#: Inches: the width of a figure, and the height of a layer in it.
_WIDTH, _ROW = 11, 0.4


def degrees_drawing(learned: Learned) -> Drawing:
    """The degrees of each head, and sparsity and loss over the steps of the search."""
    found, texts = learned.discretized, len(learned.measured.lengths)
    title = (
        f"Learned degrees: target sparsity {learned.target_sparsity:.3f}, measured "
        f"{learned.measured_sparsity:.3f} on {texts:,} {learned.split} texts"
    )

    def draw(page: Page) -> Figure:
        heights = (_ROW * max(6, len(found.chosen)) + 0.8, 3.0)
        figure = new_figure(_WIDTH, sum(heights) + 0.4)
        grid = figure.add_gridspec(2, 2, height_ratios=heights)
        _degrees(figure.add_subplot(grid[0, :]), found, page)
        steps = (figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1]))
        _steps(*steps, learned, page)
        figure.suptitle(title)
        return figure

    caption = (
        "A mark is a kind of connection that a head has, the larger the higher its degree, which "
        "stands below it. Layers and heads are counted from 0."
    )
    return Drawing("degrees", title, "\n".join(_words(found)), caption, draw)


def _words(found: Discretized) -> Iterator[str]:
    """What each head has, a line a layer."""
    candidates = found.costs.candidates
    for layer, heads in zip(found.costs.learned, found.chosen.tolist(), strict=True):
        said = []
        for head, chosen in enumerate(heads):
            kinds = [
                f"{name} {candidates.degrees[at][level]:g}"
                if at < len(candidates.rankings)
                else name
                for at, (name, level) in enumerate(zip(candidates.names, chosen, strict=True))
                if level
            ]
            said.append(f"head {head} {' and '.join(kinds) or found.nothing_else}")
        yield f"layer {layer}: {', '.join(said)}"


def _degrees(axes: Any, found: Discretized, page: Page) -> None:
    """A head a place: a marker for each kind that it uses, the larger the higher the degree."""
    candidates, chosen = found.costs.candidates, found.chosen.numpy()
    layers, heads, kinds = chosen.shape
    apart = 0.92 / kinds
    looks = _looks(candidates.names, page)
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
    axes.scatter(columns, rows, s=14, c=page.quiet, marker="x", label=_NOTHING[found.nothing_else])
    always = f"{found.shares['always']:.0%} of the pairs kept are those that every head keeps"
    axes.set(xlabel=f"head\n{always}", ylabel="layer")
    axes.set_xlim(-0.5, heads - 0.5)
    axes.set_ylim(layers - 0.5, -0.5)
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers), [str(layer) for layer in found.costs.learned])
    axes.set_xticks(np.arange(heads + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=page.rule, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    _legend(axes)


def _looks(names: Sequence[str], page: Page) -> list[tuple[str, str]]:
    """A colour and a marker for each: those of its kind, if no other before it has them."""
    looks: list[tuple[str, str]] = []
    spare = cycle(zip(page.series[5:], _OTHERS, strict=True))
    for name in names:
        kind = kind_of(name)
        look = (kind.on(page), kind.marker)
        looks.append(next(spare) if kind.name == "other" or look in looks else look)
    return looks


def _legend(axes: Any) -> None:
    """Above the heads, with markers of one size."""
    shown = axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False
    )
    for handle in shown.legend_handles:
        handle.set_sizes([36])


def _steps(left: Any, right: Any, learned: Learned, page: Page) -> None:
    """Sparsity on the left, loss and temperature on the right."""
    history, sparsity = learned.history, learned.measured_sparsity
    steps = [entry["step"] for entry in history]
    left.plot(steps, [1 - entry["density"] for entry in history], label="expected")
    left.plot(steps, [1 - entry["target"] for entry in history], "--", label="target")
    left.axhline(sparsity, color=page.ink, linewidth=0.8, label="of the plan, measured")
    left.set(title="Sparsity in the search phase", xlabel="step", ylabel="total sparsity")
    left.legend()
    right.plot(steps, [entry["loss"] for entry in history], color=page.series[3], label="loss")
    right.set(title="Task loss in the search phase", xlabel="step", ylabel="loss")
    other = right.twinx()
    temperature = [entry["temperature"] for entry in history]
    other.plot(steps, temperature, ":", color=page.quiet, label="temperature")
    other.spines["right"].set_visible(True)
    other.set_ylabel("temperature")
    right.legend(handles=[*right.lines, *other.lines])


def heads_drawing(probed: ProbeResult) -> Drawing:
    """The share of its attention that each head puts on a pattern's pairs, a square a head."""
    mass = probed.mass.numpy()
    layers, heads = mass.shape
    uniform = [f"{float(share):.1%}" for share in probed.uniform]

    def draw(page: Page) -> Figure:
        from matplotlib.colors import LinearSegmentedColormap

        figure = new_figure(2.2 + 0.42 * heads, 1.5 + 0.36 * layers)
        axes = figure.subplots()
        colour = KINDS[kind(parse(probed.pattern))].on(page)
        shades = LinearSegmentedColormap.from_list("mass", [page.page, colour])
        top = max(float(np.nanmax(mass, initial=0.0)), 1e-9)
        axes.imshow(mass, cmap=shades, vmin=0, vmax=top, aspect="auto")
        for (layer, head), share in np.ndenumerate(mass):
            words = "–" if np.isnan(share) else f"{100 * share:.0f}"
            ground = shades(0.0 if np.isnan(share) else share / top)
            axes.text(head, layer, words, ha="center", va="center", fontsize=8,
                      color=_legible(ground, page))  # fmt: skip
        axes.set_xticks(range(heads))
        axes.set_yticks(range(layers))
        axes.set(xlabel="head", ylabel="layer")
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(layers), uniform)
        right.set_ylabel("uniform attention")
        for each in (axes, right):
            each.tick_params(length=0)
            each.spines[:].set_visible(False)
        figure.suptitle(fill(f"attention on {probed.pattern} (%)", 12 + 6 * heads))
        return figure

    words = [
        f"layer {layer}, uniform attention {uniform[layer]}: "
        + ", ".join(f"head {head} {_share(share)}" for head, share in enumerate(row))
        for layer, row in enumerate(mass.tolist())
    ]
    caption = (
        "The share of a token's attention, in percent, that falls on these pairs, averaged over "
        "the tokens that have such a pair; on the right what uniform attention would put there. "
        f"{counted(probed.tokens, 'real token')} in {counted(probed.texts, 'text')}; layers and "
        "heads are counted from 0."
    )
    title = f"Attention on {probed.pattern}"
    return Drawing("heads", title, "\n".join(words), caption, draw)


def _share(share: float) -> str:
    return "no pair" if np.isnan(share) else f"{share:.1%}"


def _legible(ground: tuple[float, ...], page: Page) -> str:
    """The ink or the ground of a page, whichever is easier to read on a colour."""
    from matplotlib.colors import to_rgb

    def light(colour: Sequence[float]) -> float:
        return float(np.dot(np.array(colour[:3]) ** 2.2, (0.2126, 0.7152, 0.0722)))

    def contrast(colour: str) -> float:
        low, high = sorted((light(ground), light(to_rgb(colour))))
        return (high + 0.05) / (low + 0.05)

    return max((page.ink, page.page), key=contrast)
