"""The tables of README.md and docs/results.md, from the studies' own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sparseattn.report import Comparison, Summary
from sparseattn.report.comparison import Question
from sparseattn.report.summary import ArmSummary
from sparseattn.report.tables import Column, Table, mean_text
from sparseattn.report.text import fraction, interval, points

__all__ = ["CLAIMS", "DEGREES", "KINDS", "MORE", "PATTERNS", "STUDIES", "Published"]
__all__ += ["all_tasks", "claims", "headline"]

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

#: The studies of the headline tables.
STUDIES = (*PATTERNS, *MORE.values(), *DEGREES)


@dataclass(frozen=True)
class Published:
    """A study with everything that its pages show.

    Attributes:
        summary: Its arms.
        questions: Its declared comparisons.
    """

    summary: Summary
    questions: list[Question]

    def compared(self, a: str, b: str) -> Comparison:
        """Two arms, as the first table that holds them has it.

        Raises:
            KeyError: No table holds them.
        """
        tables = [each for question in self.questions for each in question.comparisons]
        tables += [each.comparison for each in self.summary.arms if each.comparison]
        for each in tables:
            if (each.a.address, each.b.address) == (a, b):
                return each
        raise KeyError(f"{self.summary.data.name} does not compare {a} with {b}")


@dataclass(frozen=True)
class Claim:
    """A row of the table of claims: what was found on one task.

    Attributes:
        claim: The paper's claim.
        task: The task.
        verdict: Our reading, in words.
        pairs: The comparisons that it rests on: the words for it, the study, and the two arms.
    """

    claim: str
    task: str
    verdict: str
    pairs: list[tuple[str, str, str, str]] = field(default_factory=list)


CLAIMS = (
    Claim(
        "P1 which: neighbours and random keys damage least",
        "SST-2",
        "holds for neighbours, not for random keys",
        [
            ("neighbours − random keys", "patterns-sst2-ten", "neighbor@:", "random@:"),
            ("neighbours − parse", "patterns-sst2-ten", "neighbor@:", "dependency@:"),
            ("random − similar keys", "patterns-sst2-ten", "random@:", "similarity@:"),
        ],
    ),
    Claim(
        "P1",
        "MRPC",
        "does not hold in one study, undecided in another",
        [
            ("similar keys − neighbours", "pairs-mrpc", "similarity@:", "neighbor@:"),
            (
                "neighbours − similar keys, second study",
                "placements-mrpc",
                "neighbor@:",
                "similarity@:",
            ),
        ],
    ),
    Claim(
        "P1",
        "SQuAD",
        "undecided: with all layers sparse no pattern learns the task in 714 steps",
        [
            ("neighbours − parse", "large-squad", "neighbor@:", "dependency@:"),
            ("random − similar keys", "large-squad", "random@:", "similarity@:"),
        ],
    ),
    Claim(
        "P2 where: late layers can be sparse at little cost, all layers cannot",
        "SST-2",
        "holds",
        [
            ("neighbours: last 3 − all", "patterns-sst2", "neighbor@-3:", "neighbor@:"),
            ("similar keys: last 3 − all", "patterns-sst2", "similarity@-3:", "similarity@:"),
            ("neighbours: last 3 − dense", "patterns-sst2", "neighbor@-3:", "dense"),
        ],
    ),
    Claim(
        "P2",
        "MRPC",
        "holds in one study of two for three of four patterns; undecided for similar keys",
        [
            ("neighbours: last 3 − all", "patterns-mrpc", "neighbor@-3:", "neighbor@:"),
            ("similar keys: last 3 − all", "patterns-mrpc", "similarity@-3:", "similarity@:"),
            (
                "neighbours: last 3 − all, second study",
                "placements-mrpc",
                "neighbor@-3:",
                "neighbor@:",
            ),
        ],
    ),
    Claim(
        "P2",
        "SQuAD",
        "half of it, for neighbours and similar keys: late layers lose far less, but not little",
        [
            ("neighbours: last 3 − all", "large-squad", "neighbor@-3:", "neighbor@:"),
            ("parse: last 3 − all", "large-squad", "dependency@-3:", "dependency@:"),
            ("neighbours: last 3 − dense", "large-squad", "neighbor@-3:", "dense"),
        ],
    ),
    Claim(
        "P3 how many: of BigBird's parts neighbours matter most",
        "SST-2",
        "holds against random keys; no difference found between neighbours and CLS",
        [
            ("mix − without neighbours", "degrees-sst2-mix", "mix@:", "without neighbours@:"),
            ("mix − without random keys", "degrees-sst2-mix", "mix@:", "without random keys@:"),
            ("mix − without CLS", "degrees-sst2-mix", "mix@:", "without CLS@:"),
        ],
    ),
    Claim(
        "P3",
        "MRPC",
        "undecided: no mix does the task",
        [
            (
                "mix − without neighbours",
                "degrees-mrpc",
                "with globals n=1 r=2@:",
                "with globals n=0 r=2@:",
            )
        ],
    ),
    Claim("P3", "SQuAD", "not run"),
    Claim(
        "P4 learned: learned degrees beat BigBird where attention is very sparse",
        "SST-2",
        "holds",
        [
            (
                "learned − BigBird's mix, target 0.84",
                "learned-sst2-ten",
                "learned s=0.84@:",
                "bigbird s=0.84@:",
            ),
            (
                "retrained − BigBird's mix, target 0.84",
                "learned-sst2-ten",
                "retrained s=0.84@:",
                "bigbird s=0.84@:",
            ),
        ],
    ),
    Claim(
        "P4",
        "MRPC",
        "holds for the plan on a fresh model",
        [
            (
                "retrained − BigBird's mix, target 0.85",
                "learned-mrpc",
                "retrained s=0.85@:",
                "bigbird s=0.85@:",
            ),
            (
                "learned − BigBird's mix, target 0.85",
                "learned-mrpc",
                "learned s=0.85@:",
                "bigbird s=0.85@:",
            ),
        ],
    ),
    Claim(
        "P4",
        "SQuAD",
        "holds at 90%, by far",
        [
            (
                "learned − BigBird's mix, target 0.9",
                "large-squad",
                "learned s=0.9@:",
                "bigbird s=0.9@:",
            ),
            (
                "retrained − BigBird's mix, target 0.9",
                "large-squad",
                "retrained s=0.9@:",
                "bigbird s=0.9@:",
            ),
        ],
    ),
)


def claims(studies: Mapping[str, Published]) -> Table:
    """A row for each claim and task: the verdict, and the effects that it rests on.

    Raises:
        KeyError: A study does not compare two arms.
    """
    rows = []
    for each in CLAIMS:
        effects, seeds = [], []
        for words, study, a, b in each.pairs:
            found = studies[study].compared(a, b)
            if not found.result or not found.means:
                raise KeyError(f"{study}: {a} and {b} are not compared")
            ends = interval(found.metric, found.result.low, found.result.high)
            star = "\\*" if found.differs else ""
            effects.append(
                f"{words}: **{points(found.metric, found.result.difference)}**{star} ({ends})"
            )
            seeds.append(" : ".join(dict.fromkeys(str(mean.count) for mean in found.means)))
        rows.append((each.claim, each.task, each.verdict, "<br>".join(effects), "<br>".join(seeds)))
    columns = ("claim of the paper", "task", "verdict here", "effect (95% interval)", "seeds")
    return Table(tuple(Column(name, number=False) for name in columns), tuple(rows))


def headline(studies: Mapping[str, Published]) -> Table:
    """Six rows: a mean, its interval, and the measured sparsity of all layers for each task.

    Raises:
        KeyError: A study or an arm is not there.
    """
    columns, heads = [], []
    for (name, task), (study, (_, targets)) in zip(PATTERNS.items(), DEGREES.items(), strict=True):
        late, whole = studies[name].summary, studies[MORE.get(name, name)].summary
        heads.append(f"{task}, {whole.data.headline.replace('f1', 'F1')}")
        degrees = studies[study].summary
        arms = [
            (whole, _arm(whole, "dense", "")),
            (late, _arm(late, "neighbor", "-3:")),
            (whole, _arm(whole, "neighbor", ":")),
            *((degrees, _arm(degrees, f"{way} s={targets[-1]}", ":")) for way in SHOWN_WAYS),
        ]
        columns.append(
            [f"{_mean(of, each)} ({fraction(each.mean('sparsity'))})" for of, each in arms]
        )
    names = ["all connections (dense)", "neighbours, last 3 of 6 layers", "neighbours, all layers"]
    names += [f"{WAYS[way]}, all layers" for way in SHOWN_WAYS]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    return _table(["mean ± 95% over seeds (measured sparsity)"], heads, rows)


def all_tasks(studies: Mapping[str, Published]) -> tuple[Table, Table]:
    """The table of patterns and the table of degrees.

    Raises:
        KeyError: A study or an arm is not there.
    """
    summaries = {name: each.summary for name, each in studies.items()}
    return _patterns(summaries), _degrees(summaries)


def _patterns(studies: Mapping[str, Summary]) -> Table:
    late = [studies[name] for name in PATTERNS]
    whole = [studies[MORE.get(name, name)] for name in PATTERNS]
    heads = [
        f"{task}, {study.data.headline.replace('f1', 'F1')}"
        for task, study in zip(PATTERNS.values(), late, strict=True)
    ]
    rows = [["all (dense)", "", *(_mean(each, _arm(each, "dense", "")) for each in whole)]]
    for kind, words in KINDS.items():
        for layers, where in PLACES.items():
            used = whole if layers == ":" else late
            rows.append([words, where, *(_change(each, _arm(each, kind, layers)) for each in used)])
    arms = [[_arm(each, kind, ":") for kind in KINDS] for each in whole]
    rows.append(["sparsity", "all", *map(_between, arms)])
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
            means = [_mean(study, each) if each else "not run" for each in arms]
            heads.append(f"{task}, target {target}")
            dense_mean = _mean(study, _arm(study, dense, ""))
            columns.append([dense_mean, *means, _between(run), f"{len(run[0].done)}"])
    rows = [list(row) for row in zip((*WAYS.values(), "sparsity", "seeds"), *columns, strict=True)]
    return _table(["degrees"], heads, rows)


def _known(study: Summary, name: str, layers: str) -> ArmSummary | None:
    return next((e for e in study.arms if (e.arm.name, e.arm.layers) == (name, layers)), None)


def _arm(study: Summary, name: str, layers: str) -> ArmSummary:
    if known := _known(study, name, layers):
        return known
    raise KeyError(f"{study.data.name} has no arm {name}@{layers}")


def _mean(study: Summary, each: ArmSummary) -> str:
    return mean_text(study.data.headline, each.metrics[study.data.headline])


def _change(study: Summary, each: ArmSummary) -> str:
    metric = study.data.headline
    if not each.comparison or not each.comparison.result:
        raise KeyError(f"{study.data.name}: {each.arm} is not compared")
    result = each.comparison.result
    return f"{points(metric, result.difference)} ({interval(metric, result.low, result.high)})"


def _between(arms: Iterable[ArmSummary]) -> str:
    """The lowest and the highest sparsity of some arms."""
    shares = [each.mean("sparsity") or 0.0 for each in arms]
    return " to ".join(dict.fromkeys((fraction(min(shares)), fraction(max(shares)))))


def _table(names: list[str], numbers: list[str], rows: list[list[str]]) -> Table:
    columns = (*(Column(name, number=False) for name in names), *map(Column, numbers))
    return Table(columns, tuple(map(tuple, rows)))
