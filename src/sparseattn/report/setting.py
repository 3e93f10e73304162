"""What was done: the study's spec and surroundings as lines of text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

from sparseattn.report.data import StudyData
from sparseattn.report.tables import Column, Table
from sparseattn.report.text import fraction

__all__ = ["environments_table", "setting_lines", "spec_text"]

#: Environments with a column of their own.
_ENVIRONMENTS = 4


def setting_lines(data: StudyData) -> list[tuple[str, str]]:
    """The setting as pairs of a heading and a text."""
    spec = data.spec
    lines = [("Model", _named(spec["model"]))] if "model" in spec else []
    if "task" in spec:
        lines.append(("Task", _named(_used_of_task(spec["task"]))))
    lines.append(("Data", ", ".join(_examples(data))))
    if "training" in spec:
        lines.append(("Training", _words(_used_of_training(spec["training"]))))
    seeds = sorted(int(seed) for seed in data.rows["seed"].dropna().unique())
    shown = ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")
    lines.append(("Seeds", f"{len(seeds):,} ({shown})" if seeds else ""))
    trials = f"{len(data.done):,} finished, {len(data.failed):,} failed"
    lines += [("Trials", trials), ("Arms", f"{len(data.groups):,}"), ("Baseline", data.baseline)]
    return [(heading, text) for heading, text in lines if text]


def _examples(data: StudyData) -> Iterator[str]:
    """How many there are of each split, and how many of their inputs were cut."""
    for split, what in (("train", "training"), ("evaluation", "evaluation")):
        count = _range(data, f"{split}_examples")
        if not count:
            continue
        cut = data.rows[f"{split}_cut"].dropna() if f"{split}_cut" in data.rows else []
        share = f" ({fraction(float(max(cut)))} of the inputs cut)" if len(cut) and max(cut) else ""
        yield f"{count} {what} examples{share}"


def _used_of_task(task: Any) -> Any:
    """A task without the options that play no part in it."""
    if not isinstance(task, Mapping):
        return task
    used = dict(task)
    if used.get("kind") != "question-answering":
        used = {key: each for key, each in used.items() if key not in ("stride", "max_answer")}
    for split in ("train", "evaluation"):
        part = used.get(split)
        if isinstance(part, Mapping) and part.get("count") is None:
            used[split] = {key: each for key, each in part.items() if key != "seed"}
    data = used.get("data")
    if isinstance(data, Mapping):
        idle = set() if data.get("hub") else {"config", "train_split", "evaluation_split"}
        used["data"] = {key: each for key, each in data.items() if key not in idle}
    return used


def _used_of_training(training: Any) -> Any:
    """A training without the options that play no part in it."""
    if not isinstance(training, Mapping) or training.get("early_stopping") is not None:
        return training
    return {key: each for key, each in training.items() if key != "held_out"}


def _range(data: StudyData, column: str) -> str:
    known = data.rows[column].dropna() if column in data.rows else []
    if not len(known):
        return ""
    low, high = int(min(known)), int(max(known))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _named(value: Any) -> str:
    """A name with its details in brackets, where there are both."""
    if not isinstance(value, Mapping) or "name" not in value:
        return _words(value)
    details = _words({key: each for key, each in value.items() if key != "name"})
    return f"{value['name']} ({details})" if details else str(value["name"])


def _words(value: Any) -> str:
    """A value in words; what is not set, off, or says only its own name is left out."""
    if isinstance(value, Mapping):
        said = {key: _words(each) for key, each in value.items() if each is not False}
        return ", ".join(
            f"{key} ({text})" if isinstance(value[key], Mapping) else f"{key}: {text}"
            for key, text in said.items()
            if text and text != key
        )
    if isinstance(value, list | tuple):
        return ", ".join(f"({_words(v)})" if isinstance(v, Mapping) else _words(v) for v in value)
    return "" if value is None else str(value)


def spec_text(data: StudyData) -> str:
    """The whole spec as YAML."""
    plain = json.loads(json.dumps(dict(data.spec), default=str))
    yaml: Any = YAML(typ="safe", pure=True)
    text = io.StringIO()
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output = False, False
    yaml.dump(plain, text)
    return text.getvalue().strip()


def environments_table(data: StudyData) -> Table:
    """Versions and devices, a column for each different environment."""
    found: dict[str, dict[str, str]] = {}
    for environment in data.environments:
        flat = dict(_flat(environment))
        found.setdefault(json.dumps(flat, sort_keys=True), flat)
    shown = list(found.values())[:_ENVIRONMENTS]
    keys = dict.fromkeys(key for flat in shown for key in flat)
    heads = ["Value"] if len(shown) == 1 else [f"{place + 1}" for place in range(len(shown))]
    columns = (Column("Name", number=False), *(Column(head, number=False) for head in heads))
    rows = tuple((key, *(flat.get(key, "–") for flat in shown)) for key in keys)
    return Table(columns, rows, len(found) - len(shown))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _words(value) or "–"
