"""Results for several sparsities, side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sparseattn.degrees.picture import new_figure
from sparseattn.degrees.result import Learned

__all__ = ["frontier_rows", "save_frontier"]

_PHASES = ("search", "discretized", "final")


def frontier_rows(results: Sequence[Learned]) -> list[dict[str, float]]:
    """A row a target: sparsities, and what the model scored in each phase.

    Returns:
        Values by column, such as `final_accuracy`; the loss where there is no metric, NaN for what
        was not measured.
    """
    names = [name for name in results[0].scores("final") if name != "loss"] or ["loss"]
    phases = [*(["dense"] if results[0].scores("dense") else []), *_PHASES]
    return [
        {
            "target_sparsity": result.target_sparsity,
            "measured_sparsity": result.measured_sparsity,
            "window_sparsity": result.windows.sparsity,
        }
        | {
            f"{phase}_{name}": result.scores(phase).get(name, float("nan"))
            for name in names
            for phase in phases
        }
        for result in results
    ]


def save_frontier(results: Sequence[Learned], folder: Path) -> list[Path]:
    """Writes `frontier.csv` and `frontier.png`.

    Args:
        results: One a sparsity.
        folder: It is there.

    Returns:
        What was written.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = frontier_rows(results)
    paths = [folder / "frontier.csv", folder / "frontier.png"]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: round(value, 6) for name, value in row.items()} for row in rows)
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    sparsities = [row["measured_sparsity"] for row in rows]
    score = list(rows[0])[-1].partition("_")[2]
    for phase, marker in zip(_PHASES, ("o", "s", "D"), strict=True):
        values = [row[f"{phase}_{score}"] for row in rows]
        axes.plot(sparsities, values, marker=marker, label=phase)
    axes.set_xlabel("measured sparsity")
    axes.set_ylabel(score)
    axes.legend(title="phase")
    axes.grid(alpha=0.3)
    figure.savefig(paths[1], dpi=150)
    return paths
