"""`sparseattn verify`; what it calls is tested in tests/verifying."""

import pytest

import sparseattn as sa
from sparseattn.models.load import quiet
from tests.models.families import build, tokenizer


@pytest.fixture
def saved(tmp_path):
    model = build("bert", num_hidden_layers=2)
    with quiet():
        for name in ("dense", "sparse"):
            model.save_pretrained(tmp_path / name)
            tokenizer(64).save_pretrained(tmp_path / name)
            sa.sparsify(model, "neighbor(radius=3)")
    (tmp_path / "texts.txt").write_text("the fox sat on the mat the fox sat on the mat\n")
    return tmp_path


def test_exit_status_is_the_verdict(run, saved):
    status, said, _ = run("verify", saved / "sparse")
    assert (status, said.split(":")[0]) == (0, "kept")
    assert "layer 1: kept; " in said
    status, said, _ = run("verify", saved / "dense", "--plan", "neighbor(3)")
    assert (status, said.split(":")[0]) == (1, "ignored")
    status, said, _ = run("verify", saved / "sparse", "--text", saved / "texts.txt")
    assert (status, said.split(":")[0]) == (0, "kept")


def test_many_texts_are_not_all_looked_at_and_it_says_so(run, saved):
    file = saved / "texts.txt"
    file.write_text(17 * file.read_text())
    status, said, _ = run("verify", saved / "sparse", "--text", file, "--changes", "2")
    assert status == 0
    assert said.startswith("note: 16 of the 17 texts are looked at, spread evenly\nkept: ")
    assert "(16 texts, 32 tokens changed)" in said


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        ("dense", (), "there is no plan to verify"),
        ("nowhere", (), "cannot be loaded"),
        ("none.onnx", ("--model", "sparse"), "there is no file"),
        ("http://127.0.0.1:1", ("--model", "sparse"), "does not answer"),
        ("sparse", ("--text", "none.txt"), "cannot read"),
    ],
)
def test_what_cannot_be_is_one_line(run, saved, target, more, message):
    place = target if target.startswith("http") else saved / target
    typed = [saved / each if each in ("sparse", "none.txt") else each for each in more]
    status, _, said = run("verify", place, *typed)
    assert status == 2
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
