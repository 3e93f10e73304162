"""The two tables at the top of the README and of docs/results.md, from the studies' summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sparseattn.report.comparison import Comparison
from sparseattn.report.summary import ArmSummary, Summary
from sparseattn.report.tables import Column, Table, mean_text
from sparseattn.report.text import fraction, interval, points

__all__ = ["STUDIES", "headline"]

#: Studies of patterns, and what a column of each is called.
PATTERNS = {"patterns-sst2": "SST-2", "patterns-mrpc": "MRPC", "large-squad": "SQuAD"}
#: Studies of all layers alone with more seeds, from which these rows come.
MORE = {"patterns-sst2": "patterns-sst2-ten"}
#: Their arms, and what a row is called.
KINDS = {
    "neighbor": "neighbours",
    "dependency": "syntax (the parse)",
    "similarity": "similar tokens",
    "random": "random keys",
}
PLACES = {"-3:": "last 3 of 6", ":": "all"}

#: Studies of degrees, what a column of each is called, and their cells of the grid; and their arms.
DEGREES = {
    "learned-sst2-ten": ("SST-2", ("0.78", "0.84")),
    "learned-mrpc": ("MRPC", ("0.85",)),
    "large-squad": ("SQuAD (F1)", ("0.9",)),
}
WAYS = {
    "dense": "all (dense)",
    "learned": "learned",
    "restarted": "learned, then trained anew",
    "spared": "one radius, last layer emptied",
    "uniform": "one radius",
    "bigbird": "BigBird's mix",
}


#: The studies that are shown.
STUDIES = (*PATTERNS, *MORE.values(), *DEGREES)


def headline(studies: Mapping[str, Summary]) -> tuple[Table, Table]:
    """Both tables.

    Args:
        studies: Summaries by the names of their studies.

    Raises:
        KeyError: A study or an arm is not there.
    """
    return _patterns(studies), _degrees(studies)


def _patterns(studies: Mapping[str, Summary]) -> Table:
    late = [studies[name] for name in PATTERNS]
    whole = [studies[MORE.get(name, name)] for name in PATTERNS]
    heads = [
        f"{task}, {study.data.headline.replace('f1', 'F1')}"
        for task, study in zip(PATTERNS.values(), late, strict=True)
    ]
    rows = [["all (dense)", "", *(_mean(each, _arm(each, "dense", "")) for each in whole)]]
    for kind, said in KINDS.items():
        for layers, where in PLACES.items():
            found = whole if layers == ":" else late
            rows.append([said, where, *(_change(each, _arm(each, kind, layers)) for each in found)])
    arms = [[_arm(each, kind, ":") for kind in KINDS] for each in whole]
    rows.append(["sparsity", "all", *map(_between, arms)])
    for layers, where in PLACES.items():
        found = whole if layers == ":" else late
        seeds = [f"{len(_arm(each, next(iter(KINDS)), layers).done)}" for each in found]
        rows.append(["seeds", where, *seeds])
    return _table(["connections", "layers"], heads, rows)


def _degrees(studies: Mapping[str, Summary]) -> Table:
    dense, *others = WAYS
    heads, columns = [], []
    for name, (task, cells) in DEGREES.items():
        study = studies[name]
        for stated in cells:
            arms = [_known(study, f"{way} s={stated}", ":") for way in others]
            found = [each for each in arms if each]
            means = [_mean(study, each) if each else "not run" for each in arms]
            heads.append(f"{task}, {stated} stated")
            columns.append(
                [
                    _mean(study, _arm(study, dense, "")),
                    *means,
                    _between(found),
                    f"{len(found[0].done)}",
                ]
            )
    rows = [list(row) for row in zip((*WAYS.values(), "sparsity", "seeds"), *columns, strict=True)]
    return _table(["degrees"], heads, rows)


def _known(study: Summary, name: str, layers: str) -> ArmSummary | None:
    return next((e for e in study.arms if (e.arm.name, e.arm.layers) == (name, layers)), None)


def _arm(study: Summary, name: str, layers: str) -> ArmSummary:
    if found := _known(study, name, layers):
        return found
    raise KeyError(f"{study.data.name} has no arm {name}@{layers}")


def _mean(study: Summary, each: ArmSummary) -> str:
    return mean_text(study.data.headline, each.metrics[study.data.headline])


def _change(study: Summary, each: ArmSummary) -> str:
    metric = study.data.headline
    if not isinstance(each.comparison, Comparison):
        raise KeyError(f"{study.data.name}: {each.arm} is not compared")
    outcome = each.comparison.outcome
    between = interval(metric, outcome.low, outcome.high)
    return f"{points(metric, outcome.difference)} ({between})"


def _between(arms: Iterable[ArmSummary]) -> str:
    """The lowest and the highest sparsity of some arms."""
    found = [each.mean("sparsity") or 0.0 for each in arms]
    ends = dict.fromkeys((fraction(min(found)), fraction(max(found))))
    return " to ".join(ends)


def _table(names: list[str], numbers: list[str], rows: list[list[str]]) -> Table:
    columns = (*(Column(name, number=False) for name in names), *map(Column, numbers))
    return Table(columns, tuple(map(tuple, rows)))
