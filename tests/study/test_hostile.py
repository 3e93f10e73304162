"""Files that anybody can make: right checksums, wrong contents."""

from __future__ import annotations

import hashlib
import json
import lzma
import tarfile
from pathlib import Path

import pytest

from sparseattn.errors import StudyError
from sparseattn.report.data import load_study
from sparseattn.study import record
from sparseattn.study.archive import Source, unpack
from sparseattn.study.spec import load_spec, spec_of
from sparseattn.study.study import Study

PACK = Path(__file__).parents[2] / "results" / "rate-sst2.tar.xz"


@pytest.fixture
def folder(tmp_path):
    unpack(PACK, tmp_path / "study")
    return tmp_path / "study"


def reseal(trial: Path, name: str, data: bytes) -> None:
    """Puts a file into a trial, with checksums that are right."""
    (trial / name).write_bytes(data)
    result = json.loads((trial / record.RESULT).read_bytes())
    result.pop("checksum")
    result["files"] = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(trial.iterdir())
        if path.name != record.RESULT
    }
    result["checksum"] = record._checksum(result)
    (trial / record.RESULT).write_bytes(record.encode(result))


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("result.json", "status", "finished"),
        ("result.json", "sparsity", "x"),
        ("result.json", "metrics", {"accuracy": [1]}),
        ("result.json", "metrics", {"accuracy": 10**40}),
        ("result.json", "counts", {"steps": 1e308}),
        ("result.json", "counts", None),
        ("result.json", "history", [3]),
        ("spec.json", "arm", None),
        ("spec.json", "seed", "0"),
        ("spec.json", "backend", {"a": []}),
        ("environment.json", None, [1]),
    ],
)
def test_contents_of_the_wrong_type_are_damage_that_is_named(folder, name, place, value):
    trial = next((folder / "trials").iterdir())
    values = json.loads((trial / name).read_bytes())
    values = value if place is None else {**values, place: value}
    reseal(trial, name, json.dumps(values).encode())
    (told,) = load_study(folder).damaged
    assert f"{trial.name}/{name} is damaged" in told


@pytest.mark.parametrize(
    "data",
    ['{"a": "b"}'.encode("utf-16"), b'{"a": "\xed\xa0\x80"}', b'{"a": 1e999}', b'{"a": NaN}'],
)
def test_contents_that_json_cannot_hold_are_damage(folder, data):
    trial = next((folder / "trials").iterdir())
    reseal(trial, "environment.json", data)
    (told,) = load_study(folder).damaged
    assert f"{trial.name}/environment.json is damaged" in told


@pytest.mark.parametrize(
    ("place", "value"),
    [("arms", None), ("arms", [{"name": 1}]), ("versions", [1]), ("fingerprint", {}), ("spec", 3)],
)
def test_a_study_file_of_the_wrong_types_is_damage(folder, place, value):
    path = folder / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), place: value}))
    with pytest.raises(StudyError, match=r"study.json is damaged: .*" + place):
        Study.load(folder)


def test_a_number_too_large_is_damage_before_its_checksum(folder):
    trial = next((folder / "trials").iterdir())
    text = (trial / "result.json").read_text()
    (trial / "result.json").write_text(text.replace('"grad_norm": ', '"grad_norm": 9e999', 1))
    (told,) = load_study(folder).damaged
    assert f"{trial.name}/result.json is damaged" in told


def test_json_that_is_nested_deeply_is_no_study(folder):
    (folder / "study.json").write_text("[" * 100_000)
    with pytest.raises(StudyError, match="not JSON"):
        Study.load(folder)


def test_a_header_of_gigabytes_is_refused_unread(tmp_path):
    header = tarfile.TarInfo("study.json")
    header.type, header.size = tarfile.XHDTYPE, 2_500_000_000
    path = tmp_path / "bomb.tar.xz"
    path.write_bytes(lzma.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    with pytest.raises(StudyError, match="not a packed study"):
        Source.packed(path)


@pytest.mark.parametrize("name", ["\x1b[31mred", "=1+1", "+a", "-a", "@a", "two\nlines", ""])
def test_names_that_terminals_or_spreadsheets_would_run_are_refused(name):
    values = {"name": "n", "model": "m", "task": {"use": "bbc"}, "arms": ["dense"]}
    with pytest.raises(StudyError, match="name"):
        spec_of({**values, "name": name})
    with pytest.raises(StudyError, match="name"):
        spec_of({**values, "arms": [{"name": name, "pattern": "dense"}]})


#: Nine times the same.
ALIASES = {name: f"[{', '.join([f'*{name}'] * 9)}]" for name in "abcde"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: !!int x", "not YAML: invalid literal"),
        ("name: !!float x", "not YAML: could not convert"),
        ('name: "\\ud800"', "not YAML: .*surrogates"),
        ("name: " + "[" * 2000, "nested too deeply"),
        ("seeds: " + "9" * 5000, "not YAML: Exceeds the limit"),
        ("seeds: 1000000000\nname: n", "up to 10,000; got 1,000,000,000"),
        ("name: " + "x" * 140_000, "a study file has at most 131,072 characters"),
        ("name: [" + "x" * 100_000 + "]", r"name: expected text, got \['x{198}\.\.\.$"),
        (f"a: &a {[0] * 9}\nb: &b {ALIASES['a']}\nc: &c {ALIASES['b']}\nd: &d {ALIASES['c']}\n"
         f"e: &e {ALIASES['d']}\nname: {ALIASES['e']}", "aliases stand for more than 131,072"),
        ("name: &a [*a]", "aliases stand for more than 131,072"),
        (f"a: &a {{{', '.join(f'k{n}: 1' for n in range(400))}}}\n"
         f"name: {{<<: [{', '.join(['*a'] * 400)}]}}", "its merges .* more than 131,072 keys"),
    ],
)  # fmt: skip
def test_yaml_that_python_cannot_hold_is_one_line(tmp_path, text, why):
    path = tmp_path / "study.yaml"
    path.write_text(f"{text}\nmodel: m\ntask: {{use: bbc}}\narms: [dense]\n")
    with pytest.raises(StudyError, match=why) as raised:
        load_spec(path)
    assert "\n" not in str(raised.value)
