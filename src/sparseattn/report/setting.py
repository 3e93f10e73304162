"""What was done: the study's spec and surroundings as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sparseattn.report.data import StudyData
from sparseattn.report.tables import Column, Table

__all__ = ["environments_table", "setting_lines", "spec_text"]

#: Environments with a column of their own.
_ENVIRONMENTS = 4


def setting_lines(data: StudyData) -> list[tuple[str, str]]:
    """The setting as pairs of a heading and a text."""
    spec = data.spec
    lines = [(key.capitalize(), _named(spec[key])) for key in ("model", "task") if key in spec]
    examples = [
        f"{_range(data, column)} {what} examples"
        for column, what in (("train_examples", "training"), ("evaluation_examples", "evaluation"))
        if _range(data, column)
    ]
    lines.append(("Data", ", ".join(examples)))
    if "training" in spec:
        lines.append(("Training", _words(spec["training"])))
    seeds = sorted(int(seed) for seed in data.rows["seed"].dropna().unique())
    shown = ", ".join(map(str, seeds[:10])) + (", …" if len(seeds) > 10 else "")
    lines.append(("Seeds", f"{len(seeds):,} ({shown})" if seeds else ""))
    trials = f"{len(data.done):,} finished, {len(data.failed):,} failed"
    lines += [("Trials", trials), ("Arms", f"{len(data.groups):,}"), ("Baseline", data.baseline)]
    return [(heading, text) for heading, text in lines if text]


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
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).strip()


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
