"""The view *Heads*: what each head attends to, by `probe`, and where it does so most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseattn.app.jobs import Kept
from sparseattn.app.reader import Reader
from sparseattn.degrees.probe import ProbeResult, measure_patterns, pattern_of
from sparseattn.degrees.texts import Texts, spread_indices, tokenize
from sparseattn.errors import (
    AnnotationError,
    DataError,
    MissingExtraError,
    PlanError,
    unknown,
)
from sparseattn.pattern import Pattern, parse
from sparseattn.plan import Plan
from sparseattn.selection import select_indices
from sparseattn.syntax import Annotator

#: What is probed for each kind, and what is left beside them all.
PROBED = {
    "near": "neighbor(radius=1)",
    "similar": "similarity(k=1)",
    "parse": "dependency()",
    "global": "global(cls, sep)",
}
FAR, OWN = "far", "own"

#: Texts that are looked at, and that are listed for a head.
MOST, LISTED = 256, 10

Lines = Sequence[tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Probed:
    """Texts, and what was measured on them by kind."""

    lines: Lines
    measured: dict[str, ProbeResult]
    notices: list[str]

    @property
    def bytes(self) -> int:
        return sum(8 * each.kept.numel() for each in self.measured.values())


def heads(reader: Reader, lines: Lines, own: str, kept: Kept) -> dict[str, Any]:
    """The share of attention that each head puts on each kind of pair.

    Args:
        reader: The model.
        lines: Texts or pairs.
        own: A pattern to probe beside the others; empty for none.
        kept: What was measured before.

    Raises:
        UnsupportedModelError: The model's attention cannot be probed.
        PatternError: See `pattern_of`.
    """
    probed = _probed(reader, lines, own, kept)
    kinds = []
    for name, measured in probed.measured.items():
        kinds.append(
            {
                "kind": name,
                "pattern": measured.pattern,
                "mass": measured.mass.tolist(),
                "uniform": measured.uniform.tolist(),
                "queries": measured.queries,
            }
        )
    first = next(iter(probed.measured.values()))
    return {
        "model": reader.name,
        "kinds": kinds,
        "texts": len(probed.lines),
        "tokens": first.tokens,
        "notices": probed.notices,
    }


def texts_of_head(
    reader: Reader, lines: Lines, own: str, layer: int, head: int, kind: str, kept: Kept
) -> dict[str, Any]:
    """The texts in which a head attends most to a kind of pair, the first ones first.

    Raises:
        PlanError: The model has no such head, or nothing of this kind was probed.
    """
    probed = _probed(reader, lines, own, kept)
    if kind not in probed.measured:
        raise PlanError(unknown("kind", kind, probed.measured))
    counts = reader.state.heads
    (layer,) = select_indices(str(layer), len(counts), "layer")
    (head,) = select_indices(str(head), counts[layer], "head")
    measured = probed.measured[kind]
    queries = measured.counts[:, layer]
    shares = (measured.kept[:, layer, head] / queries.clamp(min=1)).tolist()
    order = sorted(range(len(shares)), key=lambda at: (-shares[at], at))
    found = [at for at in order if int(queries[at])][:LISTED]
    return {
        "layer": layer,
        "head": head,
        "kind": kind,
        "texts": [{"place": at, "share": shares[at], "text": probed.lines[at]} for at in found],
    }


def _probed(reader: Reader, lines: Lines, own: str, kept: Kept) -> _Probed:
    some = [lines[at] for at in spread_indices(len(lines), MOST)]
    key = ("probed", reader.name, own, tuple(some))
    probed: _Probed = kept.get(key, lambda: _measure(reader, some, own), lambda made: made.bytes)
    return probed


def _measure(reader: Reader, lines: Lines, own: str) -> _Probed:
    if not lines:
        raise DataError("there are no texts to probe")
    patterns, notices = _patterns(reader, own)
    needs = frozenset[str]().union(*(pattern.needs for pattern in patterns.values()))
    rows, collator = tokenize(reader.encoder, lines, reader.tokenizer, needs, pairs=True)
    texts = Texts(reader.encoder, rows, collator, MOST)
    if len(texts.rows) < len(lines):
        lines = [lines[at] for at in spread_indices(len(lines), len(texts.rows))]
    measured = measure_patterns(texts, list(patterns.values()), reader.tokenizer)
    return _Probed(lines, dict(zip(patterns, measured, strict=True)), notices)


def _patterns(reader: Reader, own: str) -> tuple[dict[str, Pattern], list[str]]:
    """What to probe here, and why something is left out."""
    patterns: dict[str, Pattern] = {name: parse(text) for name, text in PROBED.items()}
    notices = []
    try:
        Annotator(reader.tokenizer)
    except (MissingExtraError, AnnotationError) as error:
        del patterns["parse"]
        notices.append(f"not along the parse: {error}")
    union = Plan.of(" | ".join(map(str, patterns.values()))).entries[0].pattern
    patterns[FAR] = parse("full()") - union
    if own.strip():
        patterns[OWN] = pattern_of(own.strip())
    return patterns, notices
