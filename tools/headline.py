"""The tables of means and changes in README.md and docs/results, from the studies' own numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from sparseattn.report import ArmKey, Comparison, StudyData, Summary
from sparseattn.report.comparison import Question
from sparseattn.report.summary import ArmSummary
from sparseattn.report.tables import Column, Table
from sparseattn.report.text import fraction, interval, learned, points, spell

__all__ = ["BASELINES", "DEGREES", "KINDS", "MORE", "PATTERNS", "POST_HOC", "STUDIES"]
__all__ += ["Dense", "Published", "all_kinds", "all_tasks", "ends", "headline", "twelve_layers"]

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

#: Studies of degrees, what a column of each is called, and their target sparsities; their arms.
DEGREES = {
    "learned-sst2-ten": ("SST-2", ("0.78", "0.84")),
    "learned-mrpc": ("MRPC", ("0.85",)),
    "large-squad": ("SQuAD (F1)", ("0.9",)),
}
WAYS = {
    "dense": "all (dense)",
    "learned": "learned",
    "retrained": "learned, then retrained",
    "empty last layer": "one radius, last layer empty",
    "uniform": "one radius",
    "bigbird": "BigBird's mix",
}

#: Studies of degrees over several kinds, what a column of each is called, and their targets.
OVER = {
    "kinds-mrpc": ("MRPC", ("0.9", "0.93")),
    "kinds-squad": ("SQuAD (F1)", ("0.9", "0.95")),
    "kinds-sst2": ("SST-2", ("0.78", "0.84")),
    "kinds-rte": ("RTE", ("0.85", "0.9")),
}
#: Their arms, and what a row is called.
OVER_WAYS = {
    "dense": "all connections (dense)",
    "bigbird": "BigBird's mix",
    "uniform": "one radius",
    "windows": "learned: near keys",
    "union": "learned: near and similar keys",
    "four kinds": "learned: four kinds",
    "windows retrained": "near keys, a fresh model",
    "union retrained": "near and similar keys, a fresh model",
}
#: The rows and columns of the headline table.
HEADLINE_WAYS = ("dense", "bigbird", "uniform", "windows", "union")
HEADLINE = (
    ("kinds-mrpc", "0.9"),
    ("kinds-mrpc", "0.93"),
    ("kinds-squad", "0.95"),
    ("kinds-sst2", "0.84"),
)

#: Studies of the model of 12 layers: patterns, learned degrees, and what a column is called.
BASE = {"SST-2": ("base-sst2", "base-learned-sst2"), "MRPC": ("base-mrpc", "base-learned-mrpc")}
BASE_PLACES = {"-6:": "last 6 of 12", ":": "all"}
BASE_WAYS = ("bigbird", "uniform", "windows", "union", "windows retrained", "union retrained")

#: Studies whose dense model is compared here with all its seeds, which are in another study. Where
#: both have a seed, its trial has the same digest.
BASELINES = {
    "patterns-sst2": "patterns-sst2-ten",
    "patterns-mrpc": "pairs-mrpc",
    "learned-mrpc": "pairs-mrpc",
}

#: Questions that were written down when a trial of theirs, here or in a study that shares it, had
#: been run, as the history of `studies/` has it: these are older than `added` in `study.json`.
POST_HOC = {
    "degrees-sst2": ("What if the neighbours go?", "What if the random keys go?"),
    "degrees-sst2-mix": ("What if one part goes?",),
    "heads-mrpc": (
        "These two heads, or others, where the rest has windows?",
        "What do they miss?",
    ),
    "learned-sst2": ("Which head gets which degree?", "The plan, or the way to it?"),
    "learned-sst2-ten": (
        "Which head gets which degree?",
        "Is it the last layer, which nobody reads?",
        "The plan, or the way to it?",
    ),
    "pairs-mrpc": (
        "Similar keys, or near ones?",
        "Which connections, or how many?",
        "All layers, or none?",
    ),
    "patterns-sst2": ("All layers, or none?",),
    "patterns-sst2-ten": ("Syntax, or similarity?", "All layers, or none?"),
    "question-squad": ("The question, or as many near keys?",),
}

#: The studies of the headline tables.
STUDIES = (
    *PATTERNS,
    *MORE.values(),
    *DEGREES,
    *OVER,
    *(name for pair in BASE.values() for name in pair),
)


@dataclass(frozen=True)
class Published:
    """A study with everything that its pages show.

    Attributes:
        summary: Its arms.
        questions: Its declared comparisons.
        based: Its arms against the dense model with all its seeds: see `BASELINES`.
    """

    summary: Summary
    questions: list[Question]
    based: Summary

    def compared(self, a: str, b: str) -> Comparison:
        """Two arms, as the first table that holds them has it.

        Raises:
            KeyError: No table holds them.
        """
        tables = [each for question in self.questions for each in question.comparisons]
        if b == "dense":
            tables = [each.comparison for each in self.based.arms if each.comparison]
        for each in tables:
            if (each.a.address, each.b.address) == (a, b):
                return each
        raise KeyError(f"{self.summary.data.name} does not compare {a} with {b}")


class Dense:
    """The dense model of a study with all that is needed to compare arms of others with it.

    Args:
        data: The study, whose trials can be read.
    """

    def __init__(self, data: StudyData) -> None:
        self.rows = data.done_in(ArmKey("dense"))
        self.kept = {digest: data.predictions(digest) for digest in self.rows["digest"]}

    def under(self, data: StudyData) -> StudyData:
        """Another study with this dense model in place of its own.

        Raises:
            ValueError: A seed that both have is not the same trial.
        """
        own = data.rows[data.rows["arm"] == "dense"].set_index("seed")["digest"]
        ours = self.rows.set_index("seed")["digest"]
        if list(ours.reindex(own.index)) != list(own):
            raise ValueError(f"{data.name}: its dense trials are others")

        def predictions(digest: str) -> pd.DataFrame:
            return self.kept[digest] if digest in self.kept else data.predictions(digest)

        rows = pd.concat([self.rows, data.rows[data.rows["arm"] != "dense"]], ignore_index=True)
        return replace(data, rows=rows, predictions=predictions, contrasts={}, planned=None)


def ends(found: Comparison) -> str:
    """The interval of a difference; where runs have two modes, how many learned the task."""
    if found.learned and math.isnan(found.result.low):
        runs = " : ".join(f"{each.runs} of {each.of}" for each in found.learned)
        return f"learned it: {runs}"
    return interval(found.metric, found.result.low, found.result.high)


def headline(studies: Mapping[str, Published]) -> Table:
    """Five rows: all connections, fixed degrees and learned ones, where attention is very sparse.

    Raises:
        KeyError: A study or an arm is not there.
    """
    return _over(studies, HEADLINE, HEADLINE_WAYS)


def all_kinds(studies: Mapping[str, Published]) -> Table:
    """The same with every target and arm.

    Raises:
        KeyError: A study or an arm is not there.
    """
    every = [(name, target) for name, (_, targets) in OVER.items() for target in targets]
    return _over(studies, every, OVER_WAYS)


def _over(
    studies: Mapping[str, Published], places: Iterable[tuple[str, str]], ways: Iterable[str]
) -> Table:
    heads, columns, ways = [], [], list(ways)
    for name, target in places:
        cells, sparse = _column(studies[name].based, ways, target)
        columns.append([*cells, _between(sparse)])
        heads.append(f"{OVER[name][0]}, {float(target):.0%}")
    names = [*(OVER_WAYS[way] for way in ways), "measured sparsity"]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    return _table(["connections, all layers"], heads, rows)


def _column(study: Summary, ways: Iterable[str], target: str) -> tuple[list[str], list[ArmSummary]]:
    """A cell for each way to a plan, the dense model first; and the sparse arms that were run."""
    dense, *others = ways
    known = [_known(study, f"{way} s={target}", ":") for way in others]
    run = [each if each and len(each.done) else None for each in (_arm(study, dense, ""), *known)]
    cells = [_cell(study.data.headline, each) if each else "not run" for each in run]
    return cells, [each for each in run[1:] if each]


def twelve_layers(studies: Mapping[str, Published]) -> Table:
    """What a model of 12 layers keeps of its accuracy under patterns and learned degrees.

    Raises:
        KeyError: A study or an arm is not there.
    """
    columns, names = [], []
    for patterns, degrees in BASE.values():
        fixed, learnt = studies[patterns].based, studies[degrees].based
        rows = [("all connections (dense)", "", _arm(fixed, "dense", ""))]
        rows += [
            (words, where, _arm(fixed, kind, layers))
            for kind, words in KINDS.items()
            for layers, where in BASE_PLACES.items()
        ]
        rows += [(OVER_WAYS[way], "all", _arm(learnt, way, ":")) for way in BASE_WAYS]
        metric = fixed.data.headline
        columns.append([f"{_cell(metric, each, sparsity=True)}{_few(each)}" for *_, each in rows])
        names = [[words, where] for words, where, _ in rows]
    cells = zip(*columns, strict=True)
    whole = [[*name, *row] for name, row in zip(names, cells, strict=True)]
    return _table(["connections", "layers"], list(BASE), whole)


def _few(each: ArmSummary) -> str:
    """How many seeds an arm has; of the dense model the cell says it."""
    return f", {len(each.done)} seeds" if each.comparison else ""


def all_tasks(studies: Mapping[str, Published]) -> tuple[Table, Table]:
    """The table of patterns and the table of degrees.

    Raises:
        KeyError: A study or an arm is not there.
    """
    summaries = {name: each.based for name, each in studies.items()}
    return _patterns(summaries), _degrees(summaries)


def _patterns(studies: Mapping[str, Summary]) -> Table:
    late = [studies[name] for name in PATTERNS]
    whole = [studies[MORE.get(name, name)] for name in PATTERNS]
    metrics = [each.data.headline for each in whole]
    heads = [
        f"{task}, {metric.replace('f1', 'F1')}"
        for task, metric in zip(PATTERNS.values(), metrics, strict=True)
    ]
    rows = [["all (dense)", "", *map(_cell, metrics, (_arm(e, "dense", "") for e in whole))]]
    for kind, words in KINDS.items():
        for layers, where in PLACES.items():
            used = whole if layers == ":" else late
            arms = [_arm(each, kind, layers) for each in used]
            rows.append([words, where, *map(_cell, metrics, arms)])
    sparsities = [[_arm(each, kind, ":") for kind in KINDS] for each in whole]
    rows.append(["sparsity", "all", *map(_between, sparsities)])
    for layers, where in PLACES.items():
        used = whole if layers == ":" else late
        seeds = [f"{len(_arm(each, next(iter(KINDS)), layers).done)}" for each in used]
        rows.append(["seeds", where, *seeds])
    return _table(["connections", "layers"], heads, rows)


def _degrees(studies: Mapping[str, Summary]) -> Table:
    heads, columns = [], []
    for name, (task, targets) in DEGREES.items():
        for target in targets:
            cells, run = _column(studies[name], WAYS, target)
            heads.append(f"{task}, target {target}")
            columns.append([*cells, _between(run), f"{len(run[0].done)}"])
    rows = [list(row) for row in zip((*WAYS.values(), "sparsity", "seeds"), *columns, strict=True)]
    return _table(["degrees"], heads, rows)


def _known(study: Summary, name: str, layers: str) -> ArmSummary | None:
    return next((e for e in study.arms if (e.arm.name, e.arm.layers) == (name, layers)), None)


def _arm(study: Summary, name: str, layers: str) -> ArmSummary:
    if known := _known(study, name, layers):
        return known
    raise KeyError(f"{study.data.name} has no arm {name}@{layers}")


def _cell(metric: str, each: ArmSummary, sparsity: bool = False) -> str:
    """A mean and the change against the dense model; of the dense model, how many seeds it has."""
    mean = spell(metric, each.metrics[metric].value)
    if sparsity:
        mean += f" ({fraction(each.mean('sparsity'))})"
    if not each.comparison:
        return f"{mean}<br>{len(each.done)} seeds"
    between, result = ends(each.comparison), each.comparison.result
    if each.learned and math.isnan(result.low):
        return f"{mean}<br>learned it: {learned(metric, each.learned)}"
    return f"{mean}<br>{points(metric, result.difference)} ({between})"


def _between(arms: Iterable[ArmSummary]) -> str:
    """The lowest and the highest sparsity of some arms."""
    shares = [each.mean("sparsity") or 0.0 for each in arms]
    return " to ".join(dict.fromkeys((fraction(min(shares)), fraction(max(shares)))))


def _table(names: Sequence[str], numbers: Sequence[str], rows: list[list[str]]) -> Table:
    columns = (*(Column(name, number=False) for name in names), *map(Column, numbers))
    return Table(columns, tuple(map(tuple, rows)))
