"""What files say of themselves: read back in their own formats, damaged, and in other programs'."""

import json

import pytest

import sparseattn as sa
from sparseattn.exporting import formats
from sparseattn.exporting.formats import FORMATS
from sparseattn.exporting.record import Record
from tests.exporting.conftest import PLAN
from tests.models.families import build

GOOD = {
    "format": "sparseattn-file-1",
    "plan": sa.Plan.of("neighbor(2)").to_json(),
    "heads": [4, 4],
    "windows": [None, 3],
    "vocabulary": 99,
    "special": [0],
    "longest": None,
}


def test_a_file_says_what_it_was_made_of(exported):
    model, done, opened = exported
    record = Record.read(opened.record, done.path)
    assert record.read_plan() == sa.plan_of(model) == sa.Plan.of(PLAN)
    assert (record.heads, record.windows) == ([4], [None])
    assert (record.vocabulary, record.special, record.longest) == (99, [0], 160)
    assert opened.inputs == ("input_ids", "attention_mask", "token_type_ids")


def test_a_file_alone_is_verified(exported):
    _, done, _ = exported
    found = sa.verify(done.path)
    assert found, str(found)
    assert found.plan == sa.Plan.of(PLAN)
    assert sa.verify(done.path, "neighbor(radius=3)").verdict == "ignored"  # by the global token
    wider = {":": {"0,2": "neighbor(4) | global(cls)", "1,3": "neighbor(4)"}}
    assert sa.verify(done.path, wider).verdict == "narrower than the plan"


def test_a_file_of_another_program(exported, monkeypatch):
    _, done, _ = exported
    monkeypatch.setattr(formats, "_RECORD", "another")
    for plan in (None, PLAN):
        with pytest.raises(sa.errors.DataError, match="does not say which plan") as caught:
            sa.verify(done.path, plan)
        assert "--plan, --model" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "plan", "what"),
    [
        ({"num_hidden_layers": 3}, PLAN, "heads"),
        ({"vocab_size": 80}, PLAN, "vocabulary"),
        ({}, "neighbor(5)", "plan"),
    ],
)
def test_a_model_that_the_file_was_not_made_of(exported_as, other, plan, what):
    _, done, _ = exported_as("torch")
    wrong = sa.sparsify(build("bert", **{"num_hidden_layers": 1, **other}), plan)
    with pytest.raises(sa.errors.PlanError, match=f"made of another model: {what}") as caught:
        sa.verify(done.path, model=wrong)
    assert "\n" not in str(caught.value)


def test_what_runs_a_file_is_all_that_is_needed(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnx" else name)
    FORMATS["onnx"].check_runs()
    with pytest.raises(sa.errors.MissingExtraError, match="export to onnx needs onnx:"):
        FORMATS["onnx"].check_installed()
    monkeypatch.undo()
    pytest.importorskip("openvino")
    (tmp_path / "bad.xml").write_text("hello")
    with pytest.raises(sa.errors.DataError, match="no file of openvino"):
        sa.verify(tmp_path / "bad.xml")
    assert capfd.readouterr().err == ""


def test_a_damaged_file(exported_as, tmp_path):
    onnx = pytest.importorskip("onnx")
    model, done, _ = exported_as("onnx")
    file = onnx.load(done.path)
    (entry,) = (each for each in file.metadata_props if each.key == "sparseattn")
    entry.value = entry.value[:40]
    onnx.save(file, tmp_path / "cut.onnx")
    with pytest.raises(sa.errors.DataError, match=r"cut\.onnx says of its plan is damaged"):
        sa.verify(tmp_path / "cut.onnx")
    assert sa.verify(tmp_path / "cut.onnx", model=model)  # nothing of it is needed


def test_a_record_is_what_it_was():
    record = Record.read(json.dumps(GOOD), "here")
    assert json.loads(record.model_dump_json()) == GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "sparseattn-file-2"}, "format: "),
        ({"plan": {"format": "sparseattn-plan-1"}}, "a plan's entries have"),
        ({"plan": sa.Plan.of("neighbor(2)", "7").to_json()}, "layer 7"),
        ({"plan": {**GOOD["plan"], "entries": [["no"]]}}, "a plan's entries have"),
        ({"plan": 5}, "plan: "),
        ({"heads": []}, "heads: "),
        ({"heads": [4, "4"]}, "heads: 1: "),
        ({"heads": [10**9]}, "heads: 0: "),
        ({"windows": [None]}, "one window for each layer"),
        ({"vocabulary": 10**12}, "vocabulary: "),
        ({"vocabulary": True}, "vocabulary: "),
        ({"special": [-1]}, "special: 0: "),
        ({"longest": 0}, "longest: "),
        ({"more": 1}, "more: "),
    ],
)
def test_damage_is_named_in_a_line(change, message):
    with pytest.raises(sa.errors.DataError, match="what here says of its plan is") as caught:
        Record.read(json.dumps({**GOOD, **change}), "here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"a":' * 5000, json.dumps({"plan": {}})])
def test_other_texts(text):
    with pytest.raises(sa.errors.DataError, match="damaged"):
        Record.read(text, "here")
