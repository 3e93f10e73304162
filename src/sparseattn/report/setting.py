"""How a study was run: its spec and surroundings as lines of text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from sparseattn.report.data import StudyData
from sparseattn.report.tables import Column, Table
from sparseattn.report.text import NONE, fraction
from sparseattn.study.arms import DENSE

#: Environments with a column of their own.
_ENVIRONMENTS = 4


def setting_lines(data: StudyData) -> list[tuple[str, str]]:
    """The setting as pairs of a heading and a text."""
    seeds = sorted(int(seed) for seed in data.rows["seed"].dropna().unique())
    shown = ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")
    lines = [
        ("Model", data.spec["model"]),
        ("Task", _named(_used_of_task(data.task))),
        ("Data", ", ".join(_examples(data))),
        ("Training", _words(_used_of_training(data.spec["training"]))),
        ("Seeds", f"{len(seeds):,} ({shown})" if seeds else ""),
        ("Trials", f"{len(data.done):,} finished, {len(data.failed):,} failed"),
        ("Arms", f"{len(data.groups):,}"),
        ("Baseline", DENSE),
    ]
    return [(heading, text) for heading, text in lines if text]


def _examples(data: StudyData) -> Iterator[str]:
    """How many there are of each split, and how many of their inputs were cut."""
    columns = {name: data.rows[name].dropna() for name in data.rows}
    for split, what in (("train", "training"), ("evaluation", "evaluation")):
        counts, cut = (columns.get(f"{split}_{name}", []) for name in ("examples", "cut"))
        if len(counts):
            ends = dict.fromkeys(f"{int(end):,}" for end in (min(counts), max(counts)))
            most = float(max(cut)) if len(cut) else 0.0
            share = f" ({fraction(most)} of the inputs cut)" if most else ""
            yield f"{' to '.join(ends)} {what} examples{share}"


def _used_of_task(task: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task without the options that play no part in it."""
    used = dict(task)
    if task["kind"] != "question-answering":
        used = _without(used, "stride", "max_answer")
    for split in ("train", "evaluation"):
        if not (task[split].get("count") or task[split].get("negatives")):
            used[split] = _without(task[split], "seed")
    if not task["data"].get("hub"):
        used["data"] = _without(task["data"], "config", "train_split", "evaluation_split")
    return used


def _used_of_training(training: Mapping[str, Any]) -> Mapping[str, Any]:
    """A training without the options that play no part in it."""
    return training if "early_stopping" in training else _without(training, "held_out")


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _named(values: Mapping[str, Any]) -> str:
    """A name, if there is one, with its details in brackets."""
    details = _words(_without(values, "name"))
    return f"{values['name']} ({details})" if "name" in values else details


def _words(value: Any) -> str:
    """A value in words; what is not set, off, or says only its own name is left out."""
    if isinstance(value, Mapping):
        words = {key: _words(each) for key, each in value.items() if each is not False}
        return ", ".join(
            f"{key} ({text})" if isinstance(value[key], Mapping) else f"{key}: {text}"
            for key, text in words.items()
            if text and text != key
        )
    if isinstance(value, list | tuple):
        return ", ".join(f"({_words(v)})" if isinstance(v, Mapping) else _words(v) for v in value)
    return "" if value is None else str(value)


def spec_text(data: StudyData) -> str:
    """The whole spec as YAML."""
    plain = json.loads(json.dumps(dict(data.spec)))
    yaml: Any = YAML(typ="safe", pure=True)
    text = io.StringIO()
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    yaml.dump(plain, text)
    return text.getvalue().strip()


def environments_table(data: StudyData) -> Table:
    """Versions and devices, a column for each different environment."""
    said = [{name: _words(value) for name, value in each.items()} for each in data.environments]
    different = list({json.dumps(each, sort_keys=True): each for each in said}.values())
    shown = different[:_ENVIRONMENTS]
    keys = dict.fromkeys(key for each in shown for key in each)
    heads = ["Value"] if len(shown) == 1 else [f"{place + 1}" for place in range(len(shown))]
    columns = tuple(Column(head, number=False) for head in ("Name", *heads))
    rows = tuple((key, *(each.get(key) or NONE for each in shown)) for key in keys)
    return Table(columns, rows, len(different) - len(shown))
