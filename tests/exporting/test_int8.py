"""Exported files with linear layers in 8-bit integers."""

import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sparseattn as sa
from sparseattn.exporting import comparing, files
from sparseattn.exporting.formats import FORMATS
from sparseattn.exporting.int8 import calibrated
from sparseattn.models.int8 import Int8Linear
from tests.exporting.conftest import columns
from tests.models.families import build

PLAN = "neighbor(radius=3) | global(cls)"


def calibration():
    return [columns((length,)) for length in (9, 40, 90)]


@pytest.fixture(
    scope="module",
    params=[("onnx", None), ("openvino", None), ("openvino", calibration)],
    ids=["onnx", "openvino", "openvino calibrated"],
)
def exported(request, tmp_path_factory, exported_as):
    """A model of one layer, what was exported in int8, and the file, opened."""
    name, texts = request.param
    form = FORMATS[name]
    for package in form.needs_int8:
        pytest.importorskip(package)
    model, floating, _ = exported_as(name)

    def write(_program, path, _record):  # what was written before: to trace it again takes long
        for file in floating.path.parent.iterdir():
            shutil.copy(file, path.with_suffix(file.suffix))

    path = tmp_path_factory.mktemp("out") / f"out{form.suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, name, replace(form, write=write))
        patch.setattr(files, "program_of", lambda exportable: None)
        done = sa.export(model, path, int8=True, calibration=texts and texts())
    return model, done, form.run(done.path, 1)


def test_a_file_is_near_its_model(exported):
    model, done, run = exported
    assert 1e-4 < done.share < 0.02  # not in single precision
    assert "linear layers in int8; scales of their inputs: " in str(done)
    assert ("fixed, from 2 texts" in str(done)) is (done.on_texts is not None)
    assert done.on_texts is None or 1e-4 < done.on_texts < 0.02
    for lengths in ((1,), (9, 4, 2, 1), (150, 149)):
        texts = columns(lengths, "left")
        mask = texts["attention_mask"].bool()
        with torch.no_grad():
            expected = model(**texts).last_hidden_state[mask]
        output = run({name: texts[name] for name in done.inputs})["last_hidden_state"][mask]
        assert (output - expected).norm() < 0.02 * expected.norm()


def test_a_file_alone_is_verified(exported):
    model, done, _ = exported
    found = sa.verify(done.path)
    assert found, str(found)
    assert found.plan == sa.plan_of(model)


def test_layers_alone_become_integers(exported):
    _, done, _ = exported
    if done.format == "onnx":
        import onnx

        kinds = [node.op_type for node in onnx.load(done.path).graph.node]
        assert kinds.count("MatMulNBits") == 6
        assert kinds.count("MatMul") > 0  # the attention's own
        return
    import openvino

    model = openvino.Core().read_model(done.path)
    quantized = [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]
    users = {
        port.get_node().get_type_name()
        for op in quantized
        for port in op.output(0).get_target_inputs()
    }
    assert users == ({"MatMul"} if "fixed" in done.int8 else set())
    integers = [
        op.get_shape()
        for op in model.get_ops()
        if op.get_type_name() == "Constant" and str(op.get_element_type()) == "<Type: 'int8_t'>"
    ]
    assert len(integers) == 6


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("out.pt2", {"int8": True}, "export to torch has no int8"),
        ("out.onnx", {"int8": True, "calibration": [columns((9,))]}, "takes no texts for calib"),
        ("out.xml", {"calibration": [columns((9,))]}, "are for int8 files"),
        ("out.xml", {"int8": True, "calibration": []}, "two texts or more"),
        ("out.xml", {"int8": True, "calibration": [columns((9,))]}, "two texts or more"),
        ("out.xml", {"int8": True, "calibration": ["a text"]}, "needs the tensor input_ids"),
        ("out.xml", {"int8": True, "calibration": [columns((161,))]}, "more than the 160 pos"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, path, more, message):
    pytest.importorskip("nncf")
    model = sa.sparsify(build("bert", num_hidden_layers=1), PLAN)
    with pytest.raises(sa.errors.DataError, match=message) as caught:
        sa.export(model, tmp_path / path, **more)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_texts_that_gave_no_scales_decide():
    files._check_int8(0.5, 0.1)
    files._check_int8(0.1, None)
    for share, on_texts, message in [
        (0.1, 0.3, "by 30% of its outputs on texts that gave no scales.* more and longer ones"),
        (0.1, float("nan"), "on texts that gave no scales"),
        (0.3, None, "by 30% of its outputs on random tokens, so it was not kept$"),
    ]:
        with pytest.raises(sa.errors.DataError, match=message):
            files._check_int8(share, on_texts)


def test_a_file_that_is_good_for_its_texts_alone_says_so(exported):
    _, done, _ = exported
    said = str(replace(done, share=0.5, on_texts=0.1))
    assert "on texts that gave no scales: 10.0% of the outputs" in said
    assert "note: texts unlike them may come out as random tokens; give more and longer" in said
    assert "note: texts" not in str(replace(done, share=0.1, on_texts=0.1))


@pytest.mark.parametrize(
    ("machine", "vnni", "says"),
    [
        ("x86_64", False, True),
        ("AMD64", False, True),
        ("x86_64", True, False),
        ("aarch64", False, False),
        ("arm64", False, False),
    ],
)
def test_what_int8_lacks_on_a_processor_is_said(monkeypatch, machine, vnni, says):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    done = files.Exported(Path("o.onnx"), "onnx", (), None, {}, (5,), 0.1, 0.01, int8="in int8")
    assert ("without VNNI int8 files are as slow" in str(done)) is says
    assert "VNNI" not in str(replace(done, int8=""))
    layer = Int8Linear(torch.nn.Linear(8, 8))
    assert int(layer.weight.abs().max()) == (64 if says else 127), "sums that are cut, or not"


def test_a_batch_for_calibration_is_taken_apart():
    padded = columns((9, 4, 2))
    inputs = ("input_ids", "attention_mask")
    texts = calibrated([padded, columns((5,))], inputs, 160)
    assert [text["input_ids"].shape for text in texts] == [(1, 9), (1, 4), (1, 2), (1, 5)]
    assert all(text["attention_mask"].all() and len(text) == 2 for text in texts)
    assert torch.equal(texts[1]["input_ids"][0], padded["input_ids"][1, :4])


def test_a_model_that_is_int8_already(tmp_path):
    model = sa.quantize(sa.sparsify(build("bert", num_hidden_layers=1), PLAN))
    with pytest.raises(sa.errors.UnsupportedModelError, match="export the model as it was"):
        sa.export(model, tmp_path / "out.pt2")


def test_compared_measures_what_differs():
    model = sa.sparsify(build("bert", num_hidden_layers=1), PLAN)

    def off(by):
        def run(texts):
            with torch.no_grad():
                return {"last_hidden_state": by * model(**texts).last_hidden_state}

        batches = comparing.random_batches(model, ("input_ids", "attention_mask"), (9,))
        return comparing.compared(model, run, batches)

    assert off(1.1)[1] == pytest.approx(0.1, rel=1e-3)
    assert not off(float("nan"))[1] < 1


def test_comparing_leaves_each_module_in_its_mode():
    model = sa.sparsify(build("bert", num_hidden_layers=1), PLAN).train()
    model.embeddings.eval()
    run = comparing.outputs_of(model)
    batches = comparing.random_batches(model, ("input_ids", "attention_mask"), (9,))
    assert comparing.compared(model, run, batches) == (0, 0)  # without dropout
    assert model.training
    assert not model.embeddings.training
