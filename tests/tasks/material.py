"""A tokenizer, a tiny model and small files for the tests of tasks and trials."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from sparseattn.models.names import DEFAULT, resolve
from sparseattn.tasks.prepare import Prepared, prepare
from sparseattn.tasks.spec import TaskSpec

REVIEWS = [
    {"text": text, "label": label}
    for text, label in [
        ("a charming and often affecting journey", 1),
        ("unflinchingly bleak and desperate", 0),
        ("allows us to hope that he is poised to make a great career", 1),
        ("the acting and the music are all astounding", 1),
        ("slow", 0),
        ("it takes chances that are bold by studio standards", 1),
        ("a dull and tedious film that goes nowhere at all", 0),
        ("a sometimes tedious film", 0),
    ]
]


@cache
def tokenizer() -> Any:
    """The tokenizer of the packaged model."""
    return AutoTokenizer.from_pretrained(resolve(DEFAULT))


def tiny_model(folder: Path, **config: Any) -> Path:
    """Saves a random BERT of 2 layers x 32 with its tokenizer."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "vocab_size": len(tokenizer()),
    }
    BertModel(BertConfig(**{**sizes, **config})).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Writes rows as JSON lines, compressed if the name says so."""
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def task_of(
    folder: Path,
    rows: Sequence[dict[str, Any]] = REVIEWS,
    others: Sequence[dict[str, Any]] | None = None,
    **values: Any,
) -> TaskSpec:
    """A task on rows written to a folder; evaluated on the same rows by default."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "train": write_lines(folder / "train.jsonl", rows),
        "evaluation": write_lines(folder / "evaluation.jsonl", rows if others is None else others),
    }
    values = {"kind": "classification", "max_length": 32, **values}
    return TaskSpec(data={"files": files}, **values)


def study_values(model: Path | str, task: TaskSpec, **values: Any) -> dict[str, Any]:
    """What a study's file holds: a dense arm and one worker by default."""
    return {
        "name": "small",
        "model": str(model),
        "task": task.model_dump(mode="json", exclude_none=True),
        "arms": ["dense"],
        "executor": {"workers": 1, "threads": 1},
        **values,
    }


class Interruption(Exception):  # noqa: N818
    """What stops a trial from inside."""


def prepared_of(folder: Path, *rows: Sequence[dict[str, Any]], **values: Any) -> Prepared:
    """Such a task, prepared with the packaged model's tokenizer; cached in the same folder."""
    return prepare(task_of(folder, *rows, **values), tokenizer(), cache_dir=folder)
