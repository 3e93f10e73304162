"""The report: one HTML file that needs nothing else, and the same in Markdown."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparseattn import __version__
from sparseattn.files import write_whole
from sparseattn.palette import DARK
from sparseattn.report.changed import changed_examples
from sparseattn.report.comparison import Question, questions
from sparseattn.report.data import StudyData
from sparseattn.report.figures import placement_figure, sparsity_figure
from sparseattn.report.findings import findings
from sparseattn.report.forest import forest_figure
from sparseattn.report.setting import environments_table, setting_lines, spec_text
from sparseattn.report.summary import Summary, over_summary, summarise
from sparseattn.report.tables import (
    arms_frame,
    arms_table,
    comparisons_frame,
    comparisons_table,
    failures_table,
    seeds_table,
)
from sparseattn.report.text import COUNTED_OVER, TWO_SEEDS, markdown, scale, spell
from sparseattn.study.arms import DENSE
from sparseattn.study.results import ordered
from sparseattn.words import counted

#: A table of trials larger than this, in bytes, is not put into the page.
_EMBEDDED = 1_000_000

#: What a reader of the declared comparisons must know.
_DECLARED = (
    "The study file names these pairs, under the questions that they are to answer. {} p is "
    'corrected for the comparisons of a table after Holm, and the column "Found" says whether it '
    "is below 0.05; q is Benjamini and Hochberg's over all comparisons of this page. "
    '"Detectable" is the smallest true difference that 80% of such studies would find, with this '
    'number of comparisons. "Asked" says whether the file named the pair before the first trial '
    "(declared) or later (post hoc)."
)


def write_report(study: StudyData | Summary, folder: str | Path) -> list[Path]:
    """Writes `report.html`, `report.md`, and each figure as SVG (light and dark) and PNG.

    The same study gives the same bytes.

    Args:
        study: The study, or its summary.
        folder: Where to; created if missing.

    Returns:
        The paths, `report.html` first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = study if isinstance(study, Summary) else summarise(study)
    summary, declared = over_summary(summary, questions(summary.data))
    data = summary.data
    figures = (sparsity_figure(summary), placement_figure(summary))
    forest, found = forest_figure(summary, declared), findings(summary, declared)
    drawings = [drawing for drawing in (*figures, forest) if drawing]
    unfinished = f"This study is not complete. {data.missing} " if data.missing else ""
    context = {
        "data": data,
        "dark": DARK,
        "questions": [(each, comparisons_table(each.comparisons)) for each in declared],
        "summary": summary,
        "glance": f"{unfinished}{found[0]}",
        "more": found[1:],
        "setting": setting_lines(data),
        "spec": spec_text(data),
        "arms": arms_table(summary),
        "legend": _legend(summary),
        "declared": _DECLARED.format(scale(data.headline)),
        "notes": _notes(summary),
        "drawings": drawings,
        "forest": forest,
        "changed": changed_examples(summary),
        "details": [(each, seeds_table(each)) for each in summary.arms],
        "failures": failures_table(data),
        "environments": environments_table(data),
        "downloads": (downloads := _downloads(summary, declared)),
        "all_trials": any(name == "results.csv" for _, name, _ in downloads),
        "version": __version__,
    }
    html, text = folder / "report.html", folder / "report.md"
    write_whole(html, _template("html").render(context))
    write_whole(text, _template("md").render(context))
    return [html, text, *(path for drawing in drawings for path in drawing.write(folder))]


def _template(ending: str) -> Any:
    """A template in which whatever is printed is escaped, for HTML or for Markdown."""
    html = ending == "html"

    def escaped(value: object) -> object:
        return value if html or isinstance(value, Markup) else markdown(value)

    env = Environment(
        loader=PackageLoader("sparseattn.report"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escaped,
    )
    env.filters["raw"], env.filters["counted"] = Markup, counted
    env.filters["indent_code"] = lambda text: Markup(
        "\n".join(f"    {line}" for line in text.split("\n"))
    )
    return env.get_template(f"report.{ending}.j2")


def _downloads(summary: Summary, declared: list[Question]) -> list[tuple[str, str, str]]:
    """Label, file name and data URI of each table; the trials only if they are not too many."""
    data = summary.data
    tables = [("this table", "arms.csv", arms_frame(summary))]
    if declared:
        tables.append(("the declared comparisons", "contrasts.csv", comparisons_frame(declared)))
    tables.append(("all trials", "results.csv", data.rows[ordered(data.rows, data.metrics)]))
    files = [
        (label, name, frame.to_csv(index=False, lineterminator="\n").encode())
        for label, name, frame in tables
    ]
    return [
        (label, name, f"data:text/csv;charset=utf-8;base64,{base64.b64encode(content).decode()}")
        for label, name, content in files
        if len(content) <= _EMBEDDED
    ]


def _legend(summary: Summary) -> str:
    """What the columns of the main table are counted over."""
    data, number = summary.data, summary.comparisons
    text = (
        f"Layers are counted from 0. {scale(data.headline, 'Metrics')} The interval of "
        "a mean covers other seeds on the same examples. Sparsity is one minus allowed over valid "
        f"pairs, over {COUNTED_OVER}; layer sparsity the same over the sparse layers alone. "
        "Block density is the share of the scores that is computed, mean degree the number of keys "
        "that a query attends to, time that of a trial."
    )
    if not number:
        return text
    return (
        f"{text} A change against {DENSE} is tested over other seeds and other examples "
        "where both arms have two seeds or more. Its interval is not corrected; p is, after Holm, "
        f"for the {number} comparison{'' if number == 1 else 's'} of this table, and the column "
        '"Found" says whether it is below 0.05; q is Benjamini and Hochberg\'s over all '
        'comparisons of this page. "Detectable" is the smallest true difference '
        f"that 80% of such studies would find at 0.05 / {number}. {_asked(summary)}"
    )


def _asked(summary: Summary) -> str:
    """Which comparisons of the main table are declared, and which post hoc."""
    made = [each.comparison for each in summary.arms if each.comparison]
    named = [str(each.a) for each in made if each.declared]
    if not named:
        return "The study file did not declare these comparisons: all are post hoc."
    if len(named) == len(made):
        return "The study file declared all of them before the first trial."
    rest = "the others are post hoc"
    return f"The study file declared those of {'; '.join(named)} before the first trial; {rest}."


def _notes(summary: Summary) -> list[str]:
    """What a reader of the main table must know beyond its headings."""
    metric = summary.data.headline
    notes = [summary.data.missing] if summary.data.missing else []
    patterns = summary.data.rows.get("pattern", pd.Series(dtype=str)).astype(str)
    if patterns.str.contains("(sparsity=", regex=False).any():
        notes.append(
            "A target sparsity holds over the training texts. The table has the sparsity measured "
            "over the evaluation texts: the longer a text, the sparser a window."
        )
    if summary.data.threshold is not None:
        notes.append(
            f"A run has learned the task where its {metric} is at least "
            f"{spell(metric, summary.data.threshold)}. Where not all runs of two arms have, p is "
            "that of an exact test of how many did (Boschloo's), which assumes no spread."
        )
    caveats: dict[str, list[str]] = {}
    for each in summary.arms:
        if each.reason:
            notes.append(f"{each.arm} is not compared: {each.reason}.")
        if each.comparison and each.comparison.result.caveat:
            caveats.setdefault(each.comparison.result.caveat, []).append(str(each.arm))
    for caveat, arms in caveats.items():
        more = f" and {len(arms) - 5} more" if len(arms) > 5 else ""
        which = "; ".join(arms[:5]) + more
        notes.append(
            f"{'All comparisons' if len(arms) == summary.comparisons else which}: {caveat}."
        )
    if summary.hidden:
        notes.append(
            f"{summary.hidden:,} more arms are not shown or compared: the first "
            f"{len(summary.arms)} in the study's order are. results.csv has all."
        )
    if 1 in summary.seeds:
        notes.append("An arm with one seed has no interval.")
    if 2 in summary.seeds:
        notes.append(TWO_SEEDS)
    return notes
