"""The examples that an arm predicts otherwise than the baseline does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sparseattn.errors import StudyError
from sparseattn.report.evidence import Evidence, read
from sparseattn.report.summary import Summary
from sparseattn.report.tables import Column, Table
from sparseattn.study.arms import ArmKey
from sparseattn.words import counted, one_line

#: Arms that are looked at, and examples of each that are listed.
_ARMS, _LISTED = 2, 10

#: Letters of a label or a prediction.
_LETTERS = 80


@dataclass(frozen=True)
class Changed:
    """What an arm predicts otherwise than the baseline trained with the same seeds.

    Attributes:
        arm: The arm.
        words: How many examples, in a sentence.
        table: Those that changed in most seeds first.
    """

    arm: ArmKey
    words: str
    table: Table


def changed(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The examples that one trial predicts otherwise than another, of those that both have.

    Args:
        ours: Label, prediction and score, by example; the higher the score, the better.
        theirs: Likewise.

    Returns:
        Label and prediction, `prediction_base`, and the `gain` of the score; how many both have.
    """
    base = theirs[["prediction", "score"]].add_suffix("_base")
    both = ours[["label", "prediction", "score"]].join(base, how="inner")
    differing = both[both["prediction"] != both["prediction_base"]]
    return differing.assign(gain=differing["score"] - differing["score_base"]), len(both)


def changed_examples(summary: Summary) -> list[Changed]:
    """The changed examples of the arms with the highest main metric; none of a regression."""
    data = summary.data
    if data.reference is None or data.task["kind"] == "regression":
        return []
    others = [each for each in summary.arms if each.arm != data.reference and each.metrics]
    known = [each for each in others if each.metrics[data.headline].count]
    best = sorted(known, key=lambda each: -each.metrics[data.headline].value)[:_ARMS]
    try:
        base = read(data, data.reference) if best else None
        return [made for each in best if base and (made := _changed(read(data, each.arm), base))]
    except StudyError:  # the comparisons say why
        return []


def _changed(arm: Evidence, base: Evidence) -> Changed | None:
    """None where the arms share no seed."""
    seeds = [seed for seed in arm.read if seed in base.read]
    if not seeds:
        return None
    found_in = [
        changed(*(each.frames[each.read.index(seed)] for each in (arm, base))) for seed in seeds
    ]
    every = pd.concat([differing for differing, _ in found_in])
    marked = every.assign(better=every["gain"] > 0, worse=every["gain"] < 0)
    examples = marked.groupby(level=0, sort=False)
    found = examples[["better", "worse"]].sum().assign(seeds=examples.size())
    found = found.assign(apart=(found["better"] - found["worse"]).abs())
    found = found.sort_values(["seeds", "apart"], ascending=False, kind="stable")
    shown = [(str(name), marked.loc[[name]], row) for name, row in found.head(_LISTED).iterrows()]
    table = Table(
        _columns(base.arm, len(seeds)),
        tuple(_row(name, changes, row) for name, changes, row in shown),
        len(found) - len(shown),
    )
    return Changed(arm.arm, _words(arm.arm, base.arm, [both for _, both in found_in], found), table)


def _words(arm: ArmKey, base: ArmKey, examples: Sequence[int], found: pd.DataFrame) -> str:
    seeds = len(examples)
    better, worse = (float(found[name].sum()) / seeds for name in ("better", "worse"))
    which = "that seed" if seeds == 1 else f"at least one of {seeds} seeds"
    return (
        f"{arm}: {len(found):,} of {counted(examples[0], 'example')} are predicted otherwise "
        f"than by {base} of the same seed, in {which}. In a seed {better:,.1f} of them are better "
        f"and {worse:,.1f} worse, on average."
    )


def _columns(base: ArmKey, seeds: int) -> tuple[Column, ...]:
    return (
        Column("Example", number=False),
        Column("Label", number=False),
        Column(base.name, number=False, explain="predicts"),
        Column("This arm", number=False, explain="predicts"),
        Column("Changed", explain=f"of {counted(seeds, 'seed')}"),
        Column("Better", explain="seeds"),
        Column("Worse", explain="seeds"),
    )


def _row(name: str, changes: pd.DataFrame, counts: pd.Series) -> tuple[str, ...]:
    """An example with the change that most seeds share."""
    pairs = list(zip(changes["prediction_base"], changes["prediction"], strict=True))
    said = [tuple(_cell(value) for value in pair) for pair in pairs]
    before, after = max(said, key=said.count)
    numbers = (str(int(counts[each])) for each in ("seeds", "better", "worse"))
    return (_cell(name), _cell(changes["label"].iloc[0]), before, after, *numbers)


def _cell(value: Any) -> str:
    return one_line(value, _LETTERS)
