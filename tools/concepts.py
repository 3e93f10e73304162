"""The pictures of docs/concepts.md: python tools/concepts.py.

They are made by the code that they explain: compiled plans, rankings and counts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import plans
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sparseattn.counting import SparsityReport
from sparseattn.degrees.ranking import rankings
from sparseattn.drawing import Drawing, new_figure
from sparseattn.models.read import read
from sparseattn.palette import DARK, KINDS, LIGHT, Page, kind_of
from sparseattn.plan import Plan
from sparseattn.show import parts_of, picture
from sparseattn.tokens import TokenBatch

ROOT = Path(__file__).parents[1]
TEXT = "A cat saw a dog. The dog ran."
#: The layers and heads of the packaged model.
SHAPE = [12] * 6
#: The arm whose plan is drawn.
PATTERN = "learned(sparsity=0.9)"
NEEDS = frozenset({"embedding", "heads", "words"})


def learned_plan() -> Plan:
    """The plan that seed 0 learned for MRPC."""
    found = plans(ROOT / "results" / "kinds-mrpc.tar.xz")
    return next(p for spec, p in found if spec["pattern"] == PATTERN and spec["seed"] == 0)


def head_masks(plan: Plan, tokens: TokenBatch) -> torch.Tensor:
    """What each head allows. Shape: [layers, heads, tokens, tokens], bool."""
    return torch.stack(
        [rule.dense[0].expand(12, -1, -1) for rule in plan.compile(tokens, SHAPE).layers]
    )


def blank(shape: tuple[int, ...], colour: str) -> Any:
    """An image of one colour. Shape: [queries, keys, 3]."""
    return np.tile(np.array(to_rgb(colour)), (*shape, 1))


def pattern_drawing() -> Drawing:
    """A pattern on a text."""
    drawn = picture("neighbor(radius=1) | global(cls)", TEXT).drawing
    return replace(drawn, name="concept-pattern")


def plan_drawing(plan: Plan, tokens: TokenBatch) -> Drawing:
    """A small mask for every head, in the colours of the kinds."""
    masks = head_masks(plan, tokens)

    def image(layer: int, head: int, page: Page) -> Any:
        groups = plan.resolve(SHAPE)[layer]
        pattern = next(pattern for heads, pattern in groups if head in heads)
        squares = blank(masks.shape[2:], page.band)
        for name, pairs in parts_of(pattern, masks[layer, head], tokens, layer):
            squares[pairs.numpy()] = to_rgb(KINDS[name].on(page))
        return squares

    def draw(page: Page) -> Figure:
        figure = new_figure(9.0, 5.0)
        grid = figure.subplots(6, 12)
        for (layer, head), axes in np.ndenumerate(grid):
            axes.imshow(image(layer, head, page))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if head == 0:
                axes.set_ylabel(f"layer {layer}")
            if layer == 5:
                axes.set_xlabel(f"head {head}", fontsize=7)
        kinds = [KINDS[name] for name in ("near", "similar", "global", "none")]
        handles = [Rectangle((0, 0), 1, 1, color=k.on(page), label=k.words) for k in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return figure

    words = f"The plan, a line a layer and pattern: {plan.spelled}."
    return Drawing("concept-plan", "A learned plan", words, "", draw)


def budget_drawing(plan: Plan, tokens: TokenBatch) -> Drawing:
    """The pairs of each head under a learned plan, and what each would have of as many."""
    share = head_masks(plan, tokens).float().mean(dim=(2, 3)).flatten()
    total = float(share.mean())

    def draw(page: Page) -> Figure:
        figure = new_figure(7.2, 2.8)
        axes = figure.subplots()
        heads = range(len(share))
        axes.bar(heads, 100 * share.sort(descending=True).values.numpy(), width=1.0,
                 color=page.series[0], label=f"learned: {total:.1%} of all pairs")  # fmt: skip
        axes.plot([-0.5, len(share) - 0.5], [100 * total] * 2, color=page.series[1], linewidth=2,
                  label="the same pairs, spent evenly")  # fmt: skip
        axes.set(xlabel="the 72 heads, those that keep most first", ylabel="pairs kept (%)")
        axes.legend()
        return figure

    words = (
        f"A learned plan keeps {total:.1%} of the pairs: from {float(share.max()):.1%} in one head "
        f"to {float(share.min()):.1%} in another."
    )
    return Drawing("concept-budget", "One budget, spent in two ways", words, "", draw)


def rankings_drawing() -> Drawing:
    """The order of the keys of each query in three rankings; a degree of 2 is filled."""
    reading = read(TEXT, needs=NEEDS)
    names = ("neighbor", "similarity", "dependency")
    found = {name: rankings.find(name)().ranks(reading.tokens, 0, 8)[0] for name in names}

    def draw(page: Page) -> Figure:
        figure = new_figure(10.0, 3.9)
        for axes, name in zip(figure.subplots(1, 3), names, strict=True):
            colour, ranks = kind_of(name).on(page), found[name].numpy()
            count = len(reading.labels)
            squares = blank((count, count), page.band)
            squares[(ranks <= 2) & ~np.eye(count, dtype=bool)] = to_rgb(colour)
            axes.imshow(squares)
            for (query, key), rank in np.ndenumerate(ranks):
                if query != key and rank <= 8:
                    ink = page.page if rank <= 2 else page.quiet
                    axes.text(
                        key, query, f"{rank:g}", ha="center", va="center", fontsize=7, color=ink
                    )
            axes.set_xticks(range(count), reading.labels, rotation=90)
            axes.set_yticks(range(count), reading.labels)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(name)
        return figure

    words = "; ".join(
        f"{name}, keys of 'saw' in order: " + " ".join(
            reading.labels[key] for key in found[name][3].argsort(stable=True).tolist()
            if key != 3 and found[name][3][key] <= 8
        )
        for name in names
    )  # fmt: skip
    return Drawing("concept-rankings", "Three rankings of one text", words, "", draw)


def counting_drawing() -> Drawing:
    """A batch of two texts: what is counted, what is allowed, and what is padding."""
    lengths = (9, 5)
    tokens = TokenBatch.of_lengths(*lengths)
    plan = Plan.of("neighbor(radius=1) | global(first=1)")
    compiled = plan.compile(tokens, [1])
    report = SparsityReport.of(compiled, [""])
    masks = compiled.layers[0].dense[:, 0].numpy()

    def draw(page: Page) -> Figure:
        figure = new_figure(6.4, 3.4)
        for axes, mask, length in zip(figure.subplots(1, 2), masks, lengths, strict=True):
            squares = blank(mask.shape, page.page)
            squares[:length, :length] = to_rgb(page.band)
            squares[mask] = to_rgb(KINDS["near"].on(page))
            axes.imshow(squares)
            axes.set_xticks(np.arange(-0.5, len(mask)), [])
            axes.set_yticks(np.arange(-0.5, len(mask)), [])
            axes.grid(color=page.rule)
            axes.set_axisbelow(False)
            axes.tick_params(length=0)
            axes.set_title(f"{length} tokens: {mask.sum()} of {length**2} pairs")
        figure.supxlabel(
            f"sparsity = 1 - {report.allowed} / {report.valid} = {report.sparsity:.1%}; "
            "empty squares are padding, never counted"
        )
        return figure

    words = (
        f"A batch of texts of 9 and 5 tokens, padded to 9: {report.allowed} of {report.valid} "
        f"pairs of real tokens are allowed, a sparsity of {report.sparsity:.1%}."
    )
    return Drawing("concept-sparsity", "What sparsity counts", words, "", draw)


def main() -> None:
    """Draws all, for light and for dark pages."""
    folder = ROOT / "docs" / "images"
    plan = learned_plan()
    short = read(TEXT, needs=NEEDS).tokens
    long = read(f"{TEXT} {'It saw a cat and ran. ' * 6}", needs=NEEDS).tokens
    for drawing in (
        pattern_drawing(),
        plan_drawing(plan, short),
        budget_drawing(plan, long),
        rankings_drawing(),
        counting_drawing(),
    ):
        for suffix, page in (("", LIGHT), ("-dark", DARK)):
            path = folder / f"{drawing.name}{suffix}.svg"
            path.write_bytes(drawing.svg(page))
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
