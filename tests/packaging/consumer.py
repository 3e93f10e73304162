"""A program of somebody else, checked by mypy --strict against what the package says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sparseattn as sa
from sparseattn import errors
from sparseattn.report import compare, load_study
from sparseattn.study import run


def sparse(model: Any, texts: list[str], folder: Path) -> float:
    plan: sa.Plan = sa.Plan.of({":": sa.parse("neighbor(radius=8) | global(cls)")})
    sa.sparsify(model, plan, layers=":")
    with sa.sparsified(model, "full()"):
        pass
    if (kept := sa.plan_of(model)) is not None:
        kept.save(folder / "plan.json")
    try:
        report: sa.SparsityReport = sa.describe(model, {})
    except errors.DataError:
        return 0.0
    found = sa.verify(model, plan, texts)
    exported = sa.export(model, folder / "model.onnx", int8=True)
    probed = sa.probe(model, "similarity(k=1)", texts)
    sa.plots.heads(probed, dark=True).savefig(folder / "heads.png")
    rows: list[dict[str, float | int]] = probed.rows()
    print(found.verdict, exported.difference, rows[0]["lift"])
    return report.sparsity


def study(folder: Path) -> str:
    outcome = run("study.yaml", folder)
    return compare(load_study(outcome.folder), "dense", "neighbor").verdict


# If these were not errors, the package's types would be lost on the way.
sa.verify(model=None, nothing=1)  # type: ignore[call-arg]
sa.Plan.of("full()").save(3)  # type: ignore[arg-type]
sparsity: str = sa.SparsityReport((), 0, 0).sparsity  # type: ignore[assignment]
