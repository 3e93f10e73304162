"""The report: one HTML file that needs nothing else, and the same in Markdown."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparseattn import __version__
from sparseattn.report.comparison import Comparison
from sparseattn.report.contrasts import questions
from sparseattn.report.data import StudyData
from sparseattn.report.figures import Drawing, placement_figure, sparsity_figure
from sparseattn.report.figures.svg import NARROW, WIDE
from sparseattn.report.figures.theme import css
from sparseattn.report.results import ordered
from sparseattn.report.setting import environments_table, setting_lines, spec_text
from sparseattn.report.summary import Summary, summarise
from sparseattn.report.tables import (
    arms_frame,
    arms_table,
    contrasts_frame,
    contrasts_table,
    failures_table,
    seeds_table,
)
from sparseattn.report.text import markdown

__all__ = ["write_report"]

#: A table of trials larger than this, in bytes, is not put into the page.
_EMBEDDED = 1_000_000


def write_report(study: StudyData | Summary, folder: str | Path) -> list[Path]:
    """Writes `report.html`, `report.md`, and each figure as SVG and PNG.

    The same study gives the same bytes.

    Args:
        study: The study, or what `summarise` made of it.
        folder: Where to; made if missing.

    Returns:
        The paths, `report.html` first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = study if isinstance(study, Summary) else summarise(study)
    drawings = [d for d in (sparsity_figure(summary), placement_figure(summary)) if d]
    context = _context(summary, drawings)
    html, text = folder / "report.html", folder / "report.md"
    html.write_text(_html().render(context, downloads=_downloads(summary)), encoding="utf-8")
    text.write_text(_markdown().render(context), encoding="utf-8")
    return [html, text, *(path for drawing in drawings for path in drawing.write(folder))]


def _context(summary: Summary, drawings: list[Drawing]) -> dict[str, Any]:
    data = summary.data
    return {
        "data": data,
        "questions": [(each, contrasts_table(data, each.contrasts)) for each in questions(data)],
        "summary": summary,
        "glance": _glance(summary),
        "setting": setting_lines(data),
        "spec": spec_text(data),
        "arms": arms_table(summary),
        "notes": _notes(summary),
        "drawings": drawings,
        "details": [(each, seeds_table(each)) for each in summary.arms],
        "failures": failures_table(data),
        "environments": environments_table(data),
        "version": __version__,
    }


def _html() -> Any:
    env = Environment(
        loader=PackageLoader("sparseattn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A drawing's text went through an XML writer: it holds no markup of the user's.
    env.filters["svg"] = lambda drawing, width: Markup(drawing.inline(width))
    env.globals |= {"theme": Markup(css(":root")), "wide": WIDE, "narrow": NARROW}
    return env.get_template("report.html.j2")


def _markdown() -> Any:
    # Whatever a template prints is escaped, as with autoescape; only `raw` text is not.
    env = Environment(
        loader=PackageLoader("sparseattn.report"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else markdown(value),
    )
    env.filters["raw"] = Markup
    env.filters["indent_code"] = lambda text: Markup(
        "\n".join(f"    {s}" for s in text.split("\n"))
    )
    return env.get_template("report.md.j2")


def _downloads(summary: Summary) -> list[tuple[str, str, str]]:
    """Label, file name and data URI of each table; the trials only if they are not too many."""
    data = summary.data
    tables = [("this table", "arms.csv", arms_frame(summary))]
    declared = questions(data)
    if declared:
        tables.append(("the declared comparisons", "contrasts.csv", contrasts_frame(declared)))
    tables += [("all trials", "results.csv", ordered(data.rows, data.metrics))]
    made = []
    for label, name, frame in tables:
        content = frame.to_csv(index=False, lineterminator="\n").encode()
        if len(content) <= _EMBEDDED:
            coded = quote(base64.b64encode(content), safe="=/+")
            made.append((label, name, f"data:text/csv;charset=utf-8;base64,{coded}"))
    return made


def _glance(summary: Summary) -> str:
    """The main finding in a sentence."""
    data = summary.data
    if data.lacking:
        return f"This study is not complete. {data.lacking} {_compared(summary)}"
    return _compared(summary)


def _compared(summary: Summary) -> str:
    data = summary.data
    if not summary.comparisons:
        why = "" if data.reference else ": no trial of it finished"
        return f"No arm could be compared with {data.baseline}{why}."
    verdicts = [each.verdict for each in summary.arms if each.verdict]
    lower, higher = verdicts.count("lower"), verdicts.count("higher")
    return (
        f"Of {len(verdicts)} arms compared with {data.baseline} in {data.headline}, "
        f"{lower} {'is' if lower == 1 else 'are'} lower, {higher} higher, and for "
        f"{len(verdicts) - lower - higher} no difference was found."
    )


def _notes(summary: Summary) -> list[str]:
    """What a reader of the main table must know beyond its headings."""
    metric = summary.data.headline
    notes = [summary.data.lacking] if summary.data.lacking else []
    patterns = summary.data.rows.get("pattern", pd.Series(dtype=str)).astype(str)
    if patterns.str.contains("(sparsity=", regex=False).any():
        notes.append(
            "Arms that are given a sparsity meet it on the training texts; the table counts the "
            "evaluation texts. Windows are sparser where texts are longer."
        )
    for each in summary.arms:
        if isinstance(each.comparison, str):
            notes.append(f"{each.arm} is not compared: {each.comparison}.")
    caveats: dict[str, list[str]] = {}
    for each in summary.arms:
        if isinstance(each.comparison, Comparison) and each.comparison.outcome.caveat:
            caveats.setdefault(each.comparison.outcome.caveat, []).append(str(each.arm))
    for caveat, arms in caveats.items():
        which = "All comparisons" if len(arms) == summary.comparisons else "; ".join(arms[:5])
        more = f" and {len(arms) - 5} more" if len(arms) > 5 and which != "All comparisons" else ""
        notes.append(f"{which}{more}: {caveat}.")
    if summary.hidden:
        notes.append(
            f"{summary.hidden:,} more arms are not shown or compared: the first "
            f"{len(summary.arms)} in the study's order are. results.csv has all."
        )
    if any(m.count == 1 for s in summary.arms if (m := s.metrics.get(metric))):
        notes.append("An arm with one seed has no interval.")
    return notes
