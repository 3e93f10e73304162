"""`sparseattn export`; what it calls is tested in tests/exporting."""

import pytest
import torch

import sparseattn as sa
from sparseattn.models.load import quiet
from tests.models.families import build, tokenizer


@pytest.fixture
def saved(tmp_path):
    model = build("bert", num_hidden_layers=1)
    with quiet():
        model.save_pretrained(tmp_path / "dense")
        sa.sparsify(model, "neighbor(radius=3) | global(cls)").save_pretrained(tmp_path / "sparse")
    return tmp_path


def test_exports_compares_and_times(run, saved):
    out = saved / "out.pt2"
    status, said, _ = run("export", saved / "sparse", "--to", "torch", "--out", out, "--lengths", 9)
    assert status == 0
    assert out.is_file()
    assert "4 heads: chunks with 3 tokens to each side, global tokens 0" in said
    assert "largest difference from the model" in said
    assert "9 tokens, one text: " in said
    status, said, _ = run("verify", out)
    assert (status, said.split(":")[0]) == (0, "kept")
    assert run("verify", out, "--plan", "neighbor(3)")[0] == 1


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("dense", (), "carries no plan; give --plan"),
        ("dense", ("--plan", "same_word()"), "it needs words"),
        ("sparse", ("--lengths", "9,x"), "is no list of lengths"),
        ("sparse", ("--lengths", "9,9999"), "9999 is more than the"),
        ("sparse", ("--to", "onnx"), "its name must end with .onnx"),
        ("sparse", ("--int8",), "export to torch has no int8"),
        ("sparse", ("--text", "none.txt"), "cannot read none.txt"),
    ],
)
def test_what_cannot_be_is_one_line(run, saved, model, more, message):
    typed = ("--to", "torch", "--out", saved / "out.pt2", *more)
    status, _, said = run("export", saved / model, *typed)
    assert status == 2
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not list(saved.glob("out*"))


def test_quantizes_saves_and_loads(run, saved):
    tokenizer(64).save_pretrained(saved / "sparse")
    (saved / "texts.txt").write_text("the fox sat on the mat\nthe mat\n")
    out = saved / "int8"
    typed = ("quantize", saved / "sparse", "--out", out, "--text", saved / "texts.txt")
    status, said, _ = run(*typed)
    assert status == 0
    assert "6 linear layers in int8: " in said
    assert "outputs on 2 texts differ by " in said
    assert "load it with sparseattn.load(" in said
    same = sa.quantize(sa.load(saved / "sparse"))
    loaded = sa.load(out)
    assert str(sa.plan_of(loaded)) == str(sa.plan_of(same))
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).last_hidden_state, same(ids).last_hidden_state)
    assert run("verify", out)[0] == 0  # with the tokenizer
    status, _, said = run(*typed)
    assert (status, said.count("\n")) == (2, 1)
    assert "is there already" in said


def test_a_dense_model_is_quantized_with_a_plan(run, saved):
    status, _, said = run("quantize", saved / "dense", "--out", saved / "int8")
    assert (status, said.count("\n")) == (2, 1)
    assert "carries no plan; give --plan" in said
    status, said, _ = run("quantize", saved / "dense", "--plan", "self()", "--out", saved / "int8")
    assert status == 0
    assert "outputs on random tokens differ by " in said
    with quiet():
        assert str(sa.plan_of(sa.load(saved / "int8"))) == "layers :: self()"
    status, _, said = run("quantize", saved / "int8", "--out", saved / "again")
    assert (status, said.count("\n")) == (2, 1)
    assert "it is already" in said
    assert not (saved / "again").exists()
