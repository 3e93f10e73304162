"""Exported files, run in their own runtimes."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

import sparseattn as sa
from sparseattn.exporting import files
from sparseattn.exporting.comparing import lengths_for, times_against_dense
from sparseattn.exporting.formats import FORMATS, program_of
from tests.exporting.conftest import PLAN, columns
from tests.models.families import build


def test_a_file_equals_its_model(exported):
    model, done, run = exported
    assert done.difference < 1e-5
    assert done.lengths == (5, 31, 97, 160)
    assert set(done.spans.values()) == {1, 2}
    for lengths in ((1,), (9, 4, 2, 1), (150, 149)):
        for side in ("left", "right"):
            texts = columns(lengths, side)
            mask = texts["attention_mask"].bool()
            with torch.no_grad():
                expected = model(**texts).last_hidden_state
            states = run({each: texts[each] for each in done.inputs})["last_hidden_state"]
            assert torch.allclose(states[mask], expected[mask], atol=1e-5)


@pytest.mark.gpu
def test_a_model_on_a_gpu(tmp_path):
    model = sa.sparsify(build("bert", num_hidden_layers=1).cuda(), PLAN)
    assert sa.export(model, tmp_path / "out.pt2").difference < 1e-3
    assert next(model.parameters()).is_cuda


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param("mpnet", "onnx", marks=pytest.mark.slow), ("t5-encoder", "openvino")],
)
def test_biases_by_distance(family, name, tmp_path):
    """`export` compares at 1,027 tokens a model that has no limit, T5, and refuses what differs.

    A second layer of T5 takes the bias of the first.
    """
    for package in FORMATS[name].needs:
        pytest.importorskip(package)
    model = build(family, num_hidden_layers=1, num_layers=2)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.shape == (32, 4):  # 32 buckets of distances, 4 heads
                weight.normal_()
    sa.sparsify(model, PLAN)
    done = sa.export(model, tmp_path / f"out{FORMATS[name].suffix}")
    assert done.difference < 1e-5
    found = sa.verify(done.path, changes=4)
    assert found.verdict != "ignored", str(found)


def test_standard_operators_alone(exported):
    _, done, _ = exported
    if done.format != "onnx":
        pytest.skip("it is about ONNX files")
    import onnx

    model = onnx.load(done.path)
    assert [each.domain for each in model.opset_import if each.domain] == []
    assert not model.functions
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["batch", "length"]


def test_times_against_the_dense_model(exported_as):
    model, done, _ = exported_as("torch")
    ((length, dense, sparse),) = times_against_dense(model, done.path, [64], repeats=1)
    assert length == 64
    assert min(dense, sparse) > 0


def test_int8_is_timed_against_int8(exported_as, monkeypatch):
    model, done, _ = exported_as("torch")
    quantized = []
    form = replace(FORMATS["torch"], quantize=lambda path, batches: quantized.append(batches))
    monkeypatch.setitem(FORMATS, "torch", form)
    text = {name: torch.ones(1, 9, dtype=torch.long) for name in done.inputs}
    for given in (None, [text, text]):
        list(times_against_dense(model, done.path, [32], True, given, repeats=1))
    assert quantized[0] is None
    assert len(quantized[1]) == 2


class Another(torch.nn.Module):
    """What is no encoder, has the inputs of one, and is traced at once."""

    inputs, longest = ("input_ids", "attention_mask", "token_type_ids"), 160

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(99, 32)

    def forward(self, input_ids, attention_mask, token_type_ids):
        ids = input_ids * attention_mask + token_type_ids
        return {"last_hidden_state": self.embedding(ids)}


def test_a_model_of_few_positions():
    """It is traced, and compared, at lengths that it has."""
    few = Another()
    few.longest = 20
    program_of(few)
    assert lengths_for(20) == (5, 20)


@pytest.fixture
def another(monkeypatch):
    """Something else is exported in the place of a model."""
    monkeypatch.setattr(files, "program_of", lambda _model: program_of(Another()))


@pytest.mark.usefixtures("another")
def test_a_file_that_computes_something_else_is_not_kept(tmp_path):
    model = sa.sparsify(build("bert", num_hidden_layers=1), "neighbor(radius=3)")
    with pytest.raises(sa.errors.DataError, match="differs from the model"):
        sa.export(model, tmp_path / "out.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        ("out.bin", None, r"its name must end with \.onnx \(onnx\)"),
        ("out.onnx", "openvino", r"its name must end with \.xml \(openvino\)"),
        ("out.onnx", "tflite", "unknown format 'tflite'"),
        ("nowhere/out.pt2", None, "cannot write"),
    ],
)
def test_bad_paths(tmp_path, path, to, message):
    model = sa.sparsify(build("bert", num_hidden_layers=1), "neighbor(radius=3)")
    with pytest.raises(sa.errors.DataError, match=message):
        sa.export(model, tmp_path / path, to)


@pytest.mark.usefixtures("another")
@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_named_and_leaves_nothing(name, disk_of):
    for package in FORMATS[name].needs:
        pytest.importorskip(package)
    model = sa.sparsify(build("bert", num_hidden_layers=1), "neighbor(radius=3)")
    folder = disk_of("4k")
    with pytest.raises(sa.errors.DataError, match=r"^cannot write .*(No space|is the disk full)"):
        sa.export(model, folder / f"out{FORMATS[name].suffix}")
    assert not list(folder.iterdir())


def test_a_torch_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr("torch.__version__", "2.6.0")
    monkeypatch.delattr("torch.compiler.is_exporting")
    with pytest.raises(sa.errors.PlanError, match=r"^exporting needs a newer torch than 2\.6\.0$"):
        program_of(None)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sparseattn.exporting.formats.find_spec",
        lambda name: None if name == "openvino" else find_spec(name),
    )
    model = sa.sparsify(build("bert", num_hidden_layers=1), "neighbor(radius=3)")
    with pytest.raises(sa.errors.MissingExtraError, match=r'openvino.*"sparseattn\[openvino\]"'):
        sa.export(model, tmp_path / "out.xml")


def test_two_files_of_two_models_are_never_side_by_side(tmp_path, monkeypatch):
    """Killed while they take their places, the one that is opened is not there."""
    for name in ("out.xml", "out.bin"):
        (tmp_path / name).write_text("old")

    def killed(*_):
        assert not (tmp_path / "out.xml").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "move", killed)
    with pytest.raises(KeyboardInterrupt), files._draft(tmp_path / "out.xml") as draft:
        [draft.with_suffix(end).write_text("new") for end in (".bin", ".xml")]
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]
