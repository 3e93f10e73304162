"""The two tables at the top of the README and of docs/results.md, from the studies' summaries."""

from __future__ import annotations

from collections.abc import Mapping

from sparseattn.report.comparison import Comparison
from sparseattn.report.summary import ArmSummary, Summary
from sparseattn.report.text import fraction, points, spell

__all__ = ["headline"]

#: A study, what a column of it is called, and the sparsity of its learned arms.
PATTERNS = {"patterns-sst2": "SST-2", "patterns-mrpc": "MRPC"}
DEGREES = {
    "learned-sst2-ten": ("SST-2", "s=0.84"),
    "long-imdb": ("IMDB, 512 tokens", "s=0.98"),
}
#: Arms, what a row is called, and their names in studies that call them otherwise.
KINDS = {
    "neighbor": "neighbours",
    "dependency": "syntax (the parse)",
    "similarity": "similar tokens",
    "random": "random keys",
}
PLACES = {"-3:": "last 3 of 6", ":": "all"}
WAYS = {"learned": "learned", "uniform": "one radius for all heads", "bigbird": "BigBird's mix"}
SAME = {("long-imdb", "uniform"): "neighbor"}


def headline(studies: Mapping[str, Summary]) -> str:
    """Both tables in Markdown.

    Args:
        studies: Summaries by the names of their studies.

    Raises:
        KeyError: A study or an arm is not there.
    """
    return f"{_patterns(studies)}\n{_degrees(studies)}"


def _patterns(studies: Mapping[str, Summary]) -> str:
    heads = [f"{task}, {studies[name].data.headline}" for name, task in PATTERNS.items()]
    rows = [["connections", "layers", *heads]]
    dense = [_mean(studies[name], _arm(studies[name], "dense", "")) for name in PATTERNS]
    rows.append(["all (dense)", "", *dense])
    for kind, said in KINDS.items():
        for layers, where in PLACES.items():
            cells = [_change(studies[name], kind, layers) for name in PATTERNS]
            rows.append([said, where, *cells])
    seeds = [f"{len(_arm(studies[n], 'neighbor', ':').done)}" for n in PATTERNS]
    rows.append(["sparsity, all layers", "", *(_sparsities(studies[n]) for n in PATTERNS)])
    rows.append(["seeds", "", *seeds])
    return _grid(rows, left=2)


def _degrees(studies: Mapping[str, Summary]) -> str:
    rows = [["degrees", *(f"{task}, {at.removeprefix('s=')}" for task, at in DEGREES.values())]]
    for way, said in WAYS.items():
        cells = []
        for name, (_, at) in DEGREES.items():
            known = SAME.get((name, way), way)
            cells.append(_mean(studies[name], _arm(studies[name], f"{known} {at}", ":")))
        rows.append([said, *cells])
    return _grid(rows, left=1)


def _arm(study: Summary, name: str, layers: str) -> ArmSummary:
    for each in study.arms:
        if (each.arm.name, each.arm.layers) == (name, layers):
            return each
    raise KeyError(f"{study.data.name} has no arm {name}@{layers}")


def _mean(study: Summary, each: ArmSummary) -> str:
    return spell(study.data.headline, each.metrics[study.data.headline].value)


def _change(study: Summary, name: str, layers: str) -> str:
    each = _arm(study, name, layers)
    if not isinstance(each.comparison, Comparison):
        raise KeyError(f"{study.data.name}: {name}@{layers} is not compared")
    return points(study.data.headline, each.comparison.outcome.difference)


def _sparsities(study: Summary) -> str:
    """The sparsities of a study's four patterns on all layers, the lowest and the highest."""
    found = [_arm(study, kind, ":").mean("sparsity") or 0.0 for kind in KINDS]
    return f"{fraction(min(found))} to {fraction(max(found))}"


def _grid(rows: list[list[str]], left: int) -> str:
    width = len(rows[0])
    rule = ["---"] * left + ["---:"] * (width - left)
    lines = [rows[0], rule, *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
