"""Results for several sparsities, side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseattn.degrees.picture import new_figure

if TYPE_CHECKING:
    from sparseattn.degrees.result import Learned

__all__ = ["save", "table"]

_PHASES = ("soft", "hardened", "final")


def table(results: Sequence[Learned]) -> tuple[list[str], list[list[float]]]:
    """A row a target: sparsities, and what the model scored before and after hardening.

    Returns:
        Names of the columns, and the rows. A score that was not measured is NaN.
    """
    scores = [name for name in results[0].scores("final") if name != "loss"] or ["loss"]
    columns = ["stated", "realised", "windows"]
    columns += [f"{phase}_{name}" for name in scores for phase in _PHASES]
    rows = [
        [
            result.stated,
            result.sparsity,
            result.window_sparsity,
            *(result.scores(phase).get(name, float("nan")) for name in scores for phase in _PHASES),
        ]
        for result in results
    ]
    return columns, rows


def save(results: Sequence[Learned], folder: Path) -> list[Path]:
    """Writes `frontier.csv` and `frontier.png`.

    Args:
        results: One a sparsity.
        folder: It is there.

    Returns:
        What was written.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    columns, rows = table(results)
    paths = [folder / "frontier.csv", folder / "frontier.png"]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([[round(value, 6) for value in row] for row in rows])
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    realised = [row[1] for row in rows]
    for phase, marker in zip(_PHASES, ("o", "s", "D"), strict=True):
        place = next(i for i, name in enumerate(columns) if name.startswith(f"{phase}_"))
        axes.plot(realised, [row[place] for row in rows], marker=marker, label=phase)
    axes.set_xlabel("realised sparsity")
    axes.set_ylabel(columns[-1].partition("_")[2])
    axes.legend(title="measured")
    axes.grid(alpha=0.3)
    figure.savefig(paths[1], dpi=150)
    return paths
