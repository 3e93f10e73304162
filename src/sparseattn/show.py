"""Showing what a pattern allows: in the terminal, as a picture, and as a catalogue of patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import Tensor

from sparseattn.backend import AUTO, Backend, Call, backends
from sparseattn.causes import causes
from sparseattn.counting import SparsityReport
from sparseattn.drawing import Drawing, new_figure
from sparseattn.models.names import DEFAULT
from sparseattn.models.read import read
from sparseattn.palette import KINDS, Page
from sparseattn.pattern import Pattern, catalogue, parse, rule_of
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.rules import LayerRule
from sparseattn.selection import select_indices
from sparseattn.tokens import TokenBatch
from sparseattn.words import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Longest label in characters; the rest of a token is cut.
LABEL = 14

#: Longest side of a picture's mask, in inches.
BOARD = 18.0

#: Fonts that together cover most scripts.
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Arial Unicode MS")

#: Tokens up to which each pair is named in words, and has a mark besides its colour.
WORDS, MARKED = 64, 64


@dataclass(frozen=True, eq=False)
class Picture:
    """The mask of one pattern on one text, ready to be drawn.

    Printing it with a `rich` console draws it in the terminal.

    Attributes:
        spec: The pattern's spec string.
        labels: What each token looks like.
        mask: Shape: [tokens, tokens], bool.
        counts: What was counted, in a line.
        parts: The pairs of each kind of connection, by its name in `sparseattn.palette.KINDS`; a
            pair that several kinds allow belongs to the first. Shape: [tokens, tokens], bool each.
        notices: What the reader must know, a line each.
    """

    spec: str
    labels: tuple[str, ...]
    mask: Tensor
    counts: str
    parts: tuple[tuple[str, Tensor], ...]
    notices: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws the mask as wide as the console allows."""
        margin = min(LABEL, max((cell_len(label) for label in self.labels), default=0))
        wide = any(cell_len(c) > 1 for label in self.labels for c in label)
        room = options.max_width - margin - 1
        # Two characters make a square, and hold any letter; one saves space.
        cell = 2 if wide or len(self.labels) * 2 <= room else 1
        count = min(len(self.labels), max(1, room // cell))
        yield Text(self.spec, style="bold")
        yield from _heading(self.labels[:count], margin, cell)
        full, empty = ("#", ".") if options.ascii_only else ("█", "·")
        for label, row in zip(self.labels[:count], self.mask[:count, :count].tolist(), strict=True):
            start = set_cell_size(_short(label), margin + 1)
            line = Text(start, no_wrap=True, overflow="crop")
            for allowed in row:
                line.append(*((full * cell, "cyan") if allowed else (empty.ljust(cell), "dim")))
            yield line
        yield Text(self.counts)
        if count < len(self.labels):
            yield Text(
                f"showing the first {count} of {len(self.labels)} tokens; "
                f"{len(self.labels) - count} do not fit here (--png FILE draws them all)",
                style="yellow",
            )
        yield from (Text(notice, style="yellow") for notice in self.notices)

    @property
    def drawing(self) -> Drawing:
        """The picture as a drawing: a colour and a mark for each kind of connection."""
        title = f"What {self.spec} allows"
        caption = "A coloured square is a query and a key that it may attend to."
        if len(self.parts) > 1:
            caption += " A pair of several kinds has the colour of the first."
        counts = self.counts[0].upper() + self.counts[1:]
        below = "\n".join([caption, f"{counts}.", *(f"{each}." for each in self.notices)])
        return Drawing("mask", title, "\n".join(self._words()), below, self._draw)

    def _words(self) -> Iterator[str]:
        """What each token attends to, a line each; of a long text what was counted alone."""
        yield f"{self.spec}, {self.counts}"
        if len(self.labels) <= WORDS:
            for label, row in zip(self.labels, self.mask.tolist(), strict=True):
                keys = [key for key, allowed in zip(self.labels, row, strict=True) if allowed]
                yield f"{label} attends to {' '.join(keys) or 'nothing'}"

    def _draw(self, page: Page) -> Figure:
        size = 2.5 + min(max(0.24 * len(self.labels), 3.0), BOARD)
        figure = new_figure(size, size + 0.4)
        axes = figure.add_subplot()
        _draw_squares(axes, self, page)
        _draw_labels(axes, self.labels, page)
        # Letters an inch at these sizes; constrained layout leaves room, but does not break lines.
        figure.suptitle(fill(self.spec, int(9 * size)), fontsize=12, fontweight="bold")
        below = [fill(line, int(14 * size)) for line in (self.counts, *self.notices)]
        figure.supxlabel("\n".join(below), fontsize=9)
        return figure


def picture(
    pattern: str | Pattern | Plan,
    text: str,
    pair: str | None = None,
    *,
    model: str = DEFAULT,
    layer: int = 0,
    head: int = 0,
) -> Picture:
    """Applies a pattern, or that of one head of a plan, to a text.

    Args:
        pattern: A pattern or its spec string; a plan, its JSON file or its lines.
        text: The text.
        pair: A second text, for models that read pairs.
        model: Whose tokenizer, and whose embeddings for patterns that need them, to use; see
            `sparseattn.models.names.resolve`.
        layer: The attention layer; matters to plans and to patterns that draw anew for each.
        head: The head; matters to plans.

    Raises:
        PatternError: The spec string is wrong.
        DataError: A text is empty, or the model cannot be loaded.
        PlanError: The model lacks the layer or head, or the file holds no plan for it.
    """
    plan = Plan.read(pattern) if isinstance(pattern, str) else Plan.of(pattern)
    reading = read(text, pair, model=model, needs=plan.needs)
    (index,) = select_indices(str(layer), reading.layers, "layer")
    (which,) = select_indices(str(head), reading.heads, "head")
    layers = plan.resolve([reading.heads] * reading.layers)
    heads, pattern = next(group for group in layers[index] if which in group[0])
    rule = LayerRule((((0,), pattern.rule(reading.tokens, index)),), 1, reading.tokens.valid, False)
    report = SparsityReport.of(CompiledPlan((rule,)), [str(pattern)])
    counts = (
        f"over {counted(report.tokens, 'real token')}: {report.allowed} of {report.valid} "
        f"pairs allowed, sparsity {report.sparsity:.1%}, mean degree {report.mean_degree:.1f}"
    )
    notices = []
    if len(set(layers)) > 1 or pattern.varies_by_layer:
        others = "have other patterns" if len(set(layers)) > 1 else "draw other keys"
        notices.append(f"this is layer {index} of {reading.layers}; others {others}")
    if len(layers[index]) > 1:
        same = f"head{'s' if len(heads) > 1 else ''} {', '.join(map(str, heads))}"
        notices.append(f"this is {same} of {reading.heads}; others have other patterns")
    if reading.cut:
        notices.append(
            f"the text was cut: the model has positions for {reading.longest} tokens, and the last "
            f"{reading.cut} were left out"
        )
    mask = rule.dense[0, 0]
    parts = parts_of(pattern, mask, reading.tokens, index)
    return Picture(str(pattern), reading.labels, mask, counts, parts, tuple(notices))


def parts_of(
    pattern: Pattern, mask: Tensor, tokens: TokenBatch, layer: int
) -> tuple[tuple[str, Tensor], ...]:
    """The pairs of a mask by the kind of connection; `none` for what no part of the pattern made.

    That is a token's own place, which is always allowed.
    """
    found, rest = [], mask.clone()
    for cause in causes(pattern):
        rules = [rule_of(part, tokens, layer) for part in cause.patterns]
        made = reduce(or_, (rule.dense(tokens.length)[0, 0] for rule in rules))
        found.append((cause.kind, rest & made))
        rest = rest & ~made
    found.append(("none", rest))
    return tuple((name, pairs) for name, pairs in found if pairs.any())


def _short(label: str) -> str:
    """A label of at most LABEL characters on the screen, where some letters are two wide."""
    return set_cell_size(label, LABEL - 1) + "…" if cell_len(label) > LABEL else label


def _heading(labels: Sequence[str], margin: int, cell: int) -> list[Text]:
    """The labels written downwards over their columns."""
    columns = [[c for c in _short(label) if cell_len(c)] for label in labels]
    height = max((len(column) for column in columns), default=0)
    lines = []
    for level in range(height):
        letters = ((" " * (height - len(c)) + "".join(c))[level] for c in columns)
        line = " " * (margin + 1) + "".join(set_cell_size(letter, cell) for letter in letters)
        lines.append(Text(line, no_wrap=True, overflow="crop"))
    return lines


def _draw_squares(axes: Any, shown: Picture, page: Page) -> None:
    """A coloured square for each pair, with the mark of its kind where there are several kinds."""
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    count = len(shown.labels)
    colours = np.tile(np.array(to_rgb(page.band)), (count, count, 1))
    handles = []
    for name, pairs in shown.parts:
        kind = KINDS[name]
        colour = kind.on(page)
        colours[pairs.numpy()] = to_rgb(colour)
        queries, keys = np.nonzero(pairs.numpy())
        if len(shown.parts) > 1 and count <= MARKED:
            axes.plot(keys, queries, kind.marker, color=page.page, markersize=5, linestyle="none")
        handles.append(
            Line2D([], [], linestyle="none", marker=kind.marker, color=colour, label=kind.words)
        )
    axes.imshow(colours)
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -0.8 / count), ncols=2 + count // 30,
        borderaxespad=0, handletextpad=0.2, columnspacing=1,
    )  # fmt: skip


def _draw_labels(axes: Any, labels: Sequence[str], page: Page) -> None:
    """The tokens at both sides, as many as fit, and lines between the squares."""
    from matplotlib.font_manager import get_font_names

    count, installed = len(labels), set(get_font_names())
    fonts = [font for font in _FONTS if font in installed]
    step = 1 + int(0.15 * count / BOARD)  # a label takes 0.15 inches
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(0, count, step), [_short(label) for label in labels[::step]])
        axis.set_ticks([edge - 0.5 for edge in range(1, count)] if step == 1 else [], minor=True)
        for label in axis.get_ticklabels():
            label.set(parse_math=False, fontfamily=fonts, fontsize=9)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color=page.page, linewidth=1)
    axes.set_xlabel("key: what is attended to")
    axes.set_ylabel("query: what attends")
    axes.spines[:].set_visible(False)


def patterns_table() -> Table:
    """The catalogue of patterns, for a `rich` console."""
    table = Table(show_lines=True, box=box.SIMPLE)
    table.add_column("pattern and arguments", max_width=33, overflow="fold")
    table.add_column("query q may attend to key k where", overflow="fold")
    for kind in catalogue.values():
        needs = ", ".join(sorted(parse(kind.example).needs)) or "tokens only"
        facts = Text(kind.formula)
        for name, fact in (("degree", kind.degrees), ("needs", needs), ("source", kind.source)):
            facts.append(f"\n{name}: ", style="dim").append(fact)
        table.add_row(Text(kind.signature(), style="bold"), facts)
    return table


def backends_table() -> Table:
    """The catalogue of backends and what they can do here, for a `rich` console."""
    table = Table(box=box.SIMPLE)
    table.add_column("backend")
    table.add_column("what it is", overflow="fold")
    table.add_column("on this machine, float32", overflow="fold")
    auto = "the default: for each call the fastest of these, measured once a machine"
    table.add_row(Text(AUTO, style="bold"), Text(auto), "")
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for name, backend in backends.items():
        lines = [line for device in devices for line in _usable(backend, device)]
        table.add_row(Text(name, style="bold"), Text(backend.summary), Text("\n".join(lines)))
    return table


def backend_lines() -> Iterator[str]:
    """What each backend can do on this machine, as lines of text."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for name, backend in backends.items():
        yield from (f"{name}: {line}" for device in devices for line in _usable(backend, device))


def _usable(backend: Backend, device: str) -> list[str]:
    """What a backend does with a short text and a window, in training and in inference."""
    tokens = TokenBatch(torch.ones(1, 32, dtype=torch.bool, device=device))
    rule = Plan.of(Neighbor(1)).compile(tokens, [1]).layers[0]
    lines, fine = [], []
    for name in ("inference", "training"):
        trains = name == "training"
        states = torch.zeros(1, 1, 32, 16, device=device, requires_grad=trains)
        with torch.set_grad_enabled(trains):
            if reasons := backend.reasons(Call(states, states, states, rule, 1.0)):
                lines.append(f"{device}: no {name}, {'; '.join(reasons)}")
            else:
                fine.append(name)
    remark = f", {text}" if (text := backend.remark(device)) else ""
    return [f"{device}: {' and '.join(fine)}{remark}", *lines] if fine else lines
