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
__all__ += ["Dense", "Published", "all_tasks", "ends", "headline"]

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

#: Those of the headline table.
SHOWN_WAYS = ("bigbird", "uniform", "retrained")

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
STUDIES = (*PATTERNS, *MORE.values(), *DEGREES)


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

        rows = pd.concat([self.rows, data.rows[data.rows["arm"] != "dense"]])
        return replace(data, rows=rows, predictions=predictions, contrasts={}, planned=None)


def ends(found: Comparison) -> str:
    """The interval of a difference; where runs have two modes, how many learned the task.

    Raises:
        KeyError: The arms were not compared.
    """
    if not found.result:
        raise KeyError(f"{found.a} and {found.b} are not compared: {found.reason}")
    if found.learned and math.isnan(found.result.low):
        runs = " : ".join(f"{each.runs} of {each.of}" for each in found.learned)
        return f"learned it: {runs}"
    return interval(found.metric, found.result.low, found.result.high)


def headline(studies: Mapping[str, Published]) -> Table:
    """Six rows: a mean, the measured sparsity of all layers, and the change, for each task.

    Raises:
        KeyError: A study or an arm is not there.
    """
    columns, heads = [], []
    for (name, task), (study, (_, targets)) in zip(PATTERNS.items(), DEGREES.items(), strict=True):
        late, whole = studies[name].based, studies[MORE.get(name, name)].based
        heads.append(f"{task}, {whole.data.headline.replace('f1', 'F1')}")
        degrees = studies[study].based
        arms = [
            _arm(whole, "dense", ""),
            _arm(late, "neighbor", "-3:"),
            _arm(whole, "neighbor", ":"),
            *(_arm(degrees, f"{way} s={targets[-1]}", ":") for way in SHOWN_WAYS),
        ]
        columns.append([_cell(whole.data.headline, each, sparsity=True) for each in arms])
    names = ["all connections (dense)", "neighbours, last 3 of 6 layers", "neighbours, all layers"]
    names += [f"{WAYS[way]}, all layers" for way in SHOWN_WAYS]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    return _table(["mean (measured sparsity), change (95% interval)"], heads, rows)


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
    dense, *others = WAYS
    heads, columns = [], []
    for name, (task, targets) in DEGREES.items():
        study = studies[name]
        for target in targets:
            arms = [_known(study, f"{way} s={target}", ":") for way in others]
            run = [each for each in arms if each]
            cells = [_cell(study.data.headline, each) if each else "not run" for each in arms]
            heads.append(f"{task}, target {target}")
            first = _cell(study.data.headline, _arm(study, dense, ""))
            columns.append([first, *cells, _between(run), f"{len(run[0].done)}"])
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
    if each.learned and result and math.isnan(result.low):
        return f"{mean}<br>learned it: {learned(metric, each.learned)}"
    return f"{mean}<br>{points(metric, result.difference if result else None)} ({between})"


def _between(arms: Iterable[ArmSummary]) -> str:
    """The lowest and the highest sparsity of some arms."""
    shares = [each.mean("sparsity") or 0.0 for each in arms]
    return " to ".join(dict.fromkeys((fraction(min(shares)), fraction(max(shares)))))


def _table(names: Sequence[str], numbers: Sequence[str], rows: list[list[str]]) -> Table:
    columns = (*(Column(name, number=False) for name in names), *map(Column, numbers))
    return Table(columns, tuple(map(tuple, rows)))
