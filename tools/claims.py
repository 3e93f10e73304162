"""The table of claims of docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headline import Published, ends

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
        "holds for neighbours and the parse, not for random keys",
        [
            ("neighbours − random keys", "base-sst2", "neighbor@:", "random@:"),
            ("neighbours − parse", "base-sst2", "neighbor@:", "dependency@:"),
            ("random − similar keys", "base-sst2", "random@:", "similarity@:"),
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
        "does not hold: similar keys damage least",
        [("neighbours − similar keys", "base-mrpc", "neighbor@:", "similarity@:")],
    ),
    Claim(
        "P1",
        "SQuAD",
        "undecided: with all layers sparse no pattern learned the task in 714 steps",
        [
            ("neighbours − parse", "large-squad", "neighbor@:", "dependency@:"),
            ("random − similar keys", "large-squad", "random@:", "similarity@:"),
        ],
    ),
    Claim(
        "P2 where: late layers can be sparse at little cost, all layers cannot",
        "SST-2",
        "holds: two late layers are free, three cost about 1 point by the estimates",
        [
            ("neighbours: last 3 − all", "patterns-sst2", "neighbor@-3:", "neighbor@:"),
            ("similar keys: last 3 − all", "patterns-sst2", "similarity@-3:", "similarity@:"),
            ("neighbours: last 3 − dense", "patterns-sst2", "neighbor@-3:", "dense"),
        ],
        "holds: the last six cost about 1 point by the estimates, the first six most of what all "
        "twelve cost",
        [
            ("neighbours: last 6 − all", "base-sst2", "neighbor@-6:", "neighbor@:"),
            ("similar keys: last 6 − all", "base-sst2", "similarity@-6:", "similarity@:"),
            ("neighbours: last 6 − dense", "base-sst2", "neighbor@-6:", "dense"),
            ("neighbours: first 6 − dense", "base-sst2-places", "neighbor@:6", "dense"),
            ("random keys: first 6 − dense", "base-sst2-places", "random@:6", "dense"),
        ],
    ),
    Claim(
        "P2",
        "MRPC",
        "holds in one study of two for three of four patterns, where three late layers cost about "
        "1 to 3 points by the estimates; undecided for similar keys",
        [
            ("neighbours: last 3 − all", "patterns-mrpc", "neighbor@-3:", "neighbor@:"),
            ("neighbours: last 3 − dense", "patterns-mrpc", "neighbor@-3:", "dense"),
            ("similar keys: last 3 − all", "patterns-mrpc", "similarity@-3:", "similarity@:"),
            (
                "neighbours: last 3 − all, second study",
                "placements-mrpc",
                "neighbor@-3:",
                "neighbor@:",
            ),
        ],
        "holds for near keys, the parse and random keys, with no loss found for the first two; "
        "similar keys in late layers vary widely",
        [
            ("neighbours: last 6 − all", "base-mrpc", "neighbor@-6:", "neighbor@:"),
            ("neighbours: last 6 − dense", "base-mrpc", "neighbor@-6:", "dense"),
            ("parse: last 6 − dense", "base-mrpc", "dependency@-6:", "dense"),
            ("similar keys: last 6 − all", "base-mrpc", "similarity@-6:", "similarity@:"),
        ],
    ),
    Claim(
        "P2",
        "SQuAD",
        "undecided by the counts; for neighbours late layers learn the task and lose 9 points",
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
        "undecided: no mix did the task in these runs",
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
        "undecided: better by the estimates with the trained weights; two of five fresh models do "
        "not train",
        [
            ("learned − BigBird's mix", "base-learned-sst2", "windows@:", "bigbird@:"),
            ("learned − one radius", "base-learned-sst2", "windows@:", "uniform@:"),
        ],
    ),
    Claim(
        "P4",
        "MRPC",
        "holds at 85% for the plan on a fresh model (all its runs are above all others)",
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
        "undecided at 90%: better by the estimates, 11 to 12 points below dense; fresh models do "
        "not train",
        [
            ("near and similar − BigBird's mix", "base-learned-mrpc", "union@:", "bigbird@:"),
            ("near keys − BigBird's mix", "base-learned-mrpc", "windows@:", "bigbird@:"),
        ],
    ),
    Claim(
        "P4",
        "SQuAD",
        "at 90% all runs under learned plans learned the task and no other; not significant with "
        "three seeds",
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
    Claim(
        "Sparse Cross-Encoders (arXiv 2312.17649): for re-ranking a window of 4 is enough, and the "
        "query need not see the document",
        "SQuAD's paragraphs (nDCG@10)",
        "holds for the window, if the query sees the document: no loss found at 81% sparsity; the "
        "query must see the document",
        [
            ("window of 4, query sees all − dense", "rerank-squad", "window@:", "dense"),
            ("blind query − dense", "rerank-squad", "blind@:", "dense"),
            ("both − dense", "rerank-squad", "blind window@:", "dense"),
            ("both − window of 4", "rerank-squad", "blind window@:", "window@:"),
            ("document sees no query − dense", "rerank-squad", "plain window@:", "dense"),
        ],
    ),
    Claim(
        "Crisp Attention (arXiv 2508.06016): 80% sparse attention beats dense (DistilBERT, "
        "+0.97, one run)",
        "SST-2",
        "does not hold for the arms nearest to it, 84% sparse",
        [
            ("similar keys − dense", "claims-sst2", "similarity@:", "dense"),
            ("neighbours − dense", "claims-sst2", "neighbor@:", "dense"),
        ],
        "does not hold",
        [
            ("similar keys − dense", "base-sst2", "similarity@:", "dense"),
            ("neighbours − dense", "base-sst2", "neighbor@:", "dense"),
        ],
    ),
    Claim(
        "Masks by part of speech cost nothing (arXiv 2605.24518, 0.8200 with and without)",
        "SST-2",
        "does not hold for content words as the only keys: they cost 4 points, and are no better "
        "than as many random keys",
        [
            ("content words − dense", "claims-sst2", "part of speech@:", "dense"),
            (
                "content words − random keys",
                "claims-sst2",
                "part of speech@:",
                "matched_random part of speech@:",
            ),
        ],
    ),
    Claim(
        "Our own: degrees learned over near and similar keys beat those over near keys alone",
        "MRPC",
        "holds; no loss against dense found",
        [
            ("at 90%", "kinds-mrpc", "union s=0.9@:", "windows s=0.9@:"),
            ("at 93%", "kinds-mrpc", "union s=0.93@:", "windows s=0.93@:"),
            ("at 90%, against dense", "kinds-mrpc", "union s=0.9@:", "dense"),
            ("at 93%, against dense", "kinds-mrpc", "union s=0.93@:", "dense"),
        ],
        "undecided",
        [("at 90%", "base-learned-mrpc", "union@:", "windows@:")],
    ),
    Claim(
        "Our own",
        "SQuAD",
        "holds at 95%: all runs learn the task, with near keys alone none",
        [
            ("at 90%", "kinds-squad", "union s=0.9@:", "windows s=0.9@:"),
            ("at 95%", "kinds-squad", "union s=0.95@:", "windows s=0.95@:"),
            ("at 95%, against dense", "kinds-squad", "union s=0.95@:", "dense"),
        ],
    ),
    Claim(
        "Our own",
        "SST-2",
        "no difference found",
        [
            ("at 78%", "kinds-sst2", "union s=0.78@:", "windows s=0.78@:"),
            ("at 84%", "kinds-sst2", "union s=0.84@:", "windows s=0.84@:"),
        ],
        "no difference found",
        [("at 84%", "base-learned-sst2", "union@:", "windows@:")],
    ),
    Claim(
        "Our own",
        "RTE",
        "undecided: the dense model itself is at 55.9, near chance",
        [
            ("at 85%", "kinds-rte", "union s=0.85@:", "windows s=0.85@:"),
            ("at 90%", "kinds-rte", "union s=0.9@:", "windows s=0.9@:"),
        ],
    ),
)


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
    if not found.result or not found.means:
        raise KeyError(f"{found.a} and {found.b} are not compared: {found.reason}")
    star = "\\*" if found.differs else ""
    size = f"{words}: **{points(found.metric, found.result.difference)}**{star}"
    small = [probability(p).removeprefix("= ").replace("<", "&lt;") for p in (found.p, found.q)]
    seeds = " : ".join(dict.fromkeys(str(mean.count) for mean in found.means))
    return f"{size} ({between})", *small, found.asked, seeds
