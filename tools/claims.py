"""The table of claims of docs/results.md; claims.yaml says which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headline import Published, ends
from ruamel.yaml import YAML

from sparseattn.report import Comparison
from sparseattn.report.comparison import over_page
from sparseattn.report.tables import Column, Table
from sparseattn.report.text import points, probability

__all__ = ["CLAIMS", "claims"]


@dataclass(frozen=True)
class Claim:
    """A row of the table of claims: what was found on one task.

    Attributes:
        claim: The paper's claim.
        task: The task.
        verdict: Our reading, in words.
        pairs: The comparisons that it rests on: the words for it, the study, and the two arms.
        base: The verdict on the model of 12 layers.
        base_pairs: Its comparisons.
    """

    claim: str
    task: str
    verdict: str
    pairs: list[tuple[str, str, str, str]] = field(default_factory=list)
    base: str = "not run"
    base_pairs: list[tuple[str, str, str, str]] = field(default_factory=list)


CLAIMS = [Claim(**row) for row in YAML(typ="safe").load(Path(__file__).with_suffix(".yaml"))]


def claims(studies: Mapping[str, Published]) -> Table:
    """A row for each claim and task: the verdict, and the effects that it rests on.

    Raises:
        KeyError: A study does not compare two arms.
    """
    pairs = [(*each.pairs, *each.base_pairs) for each in CLAIMS]
    tables = over_page([[studies[name].compared(a, b) for _, name, a, b in row] for row in pairs])
    rows = []
    for each, found in zip(CLAIMS, tables, strict=True):
        lines = [_effect(words, one) for (words, *_), one in zip(each.pairs, found, strict=False)]
        cells = map("<br>".join, zip(*lines, strict=True)) if lines else [""] * len(_EFFECT)
        base = [
            " ".join(_effect(words, one)[:1])
            for (words, *_), one in zip(each.base_pairs, found[len(each.pairs) :], strict=True)
        ]
        rows.append((each.claim, each.task, each.verdict, *cells, "<br>".join((each.base, *base))))
    columns = ("claim", "task", "6 layers (MiniLM)", *_EFFECT, "12 layers (MPNet)")
    return Table(tuple(Column(name, number=False) for name in columns), tuple(rows))


_EFFECT = ("effect (95% interval)", "p (Holm)", "q (page)", "asked", "seeds")


def _effect(words: str, found: Comparison) -> tuple[str, ...]:
    """A line of each of the columns `_EFFECT`."""
    between = ends(found)
    star = "\\*" if found.differs else ""
    size = f"{words}: **{points(found.metric, found.result.difference)}**{star}"
    small = [probability(p).removeprefix("= ").replace("<", "&lt;") for p in (found.p, found.q)]
    seeds = " : ".join(dict.fromkeys(str(mean.count) for mean in found.means))
    return f"{size} ({between})", *small, found.asked, seeds
