"""What is said of a model is true, whichever way it was loaded, copied or changed."""

from __future__ import annotations

import copy
import json
import re
import sys

import pytest
import torch
import transformers

import sparseattn as sa
from sparseattn.errors import (
    DataError,
    PlanError,
    PlanNotAppliedError,
    SparseAttnError,
    UnsupportedModelError,
)
from sparseattn.exporting.formats import FORMATS
from sparseattn.models.encoder import encoder_of
from sparseattn.models.identity import identity
from sparseattn.models.int8 import Int8Linear
from sparseattn.models.load import load_model, load_part
from sparseattn.models.names import DEFAULT
from sparseattn.plan import Plan
from tests.models.families import batch, build, run, sentence_transformer

PLAN = Plan.of({0: "neighbor(radius=1)", 2: "random(degree=2) | global(cls)"})


def test_a_plainly_loaded_model_tells_its_plan(tmp_path):
    model, inputs = build("bert", "ForSequenceClassification"), batch()
    dense = run(model, **inputs)
    assert sa.plan_of(model) is None
    sparse = run(sa.sparsify(model, PLAN), **inputs)
    counts = sa.describe(model, inputs)
    model.save_pretrained(tmp_path / "sparse")

    def plain():
        return type(model).from_pretrained(tmp_path / "sparse")

    loaded = plain()
    assert sa.plan_of(loaded) == sa.plan_of(model) == PLAN
    assert sa.describe(loaded, inputs).sparsity == counts.sparsity
    with sa.sparsified(loaded, "self()"):
        assert sa.plan_of(loaded) == Plan.of("self()")
    assert sa.plan_of(loaded) == PLAN
    assert torch.equal(run(loaded, **inputs), sparse)
    for loaded in (plain(), sa.sparsify(plain(), "self()"), sa.load(tmp_path / "sparse")):
        assert sa.restore(loaded) is loaded
        assert sa.plan_of(loaded) is None
        assert torch.equal(run(loaded, **inputs), dense)
        assert loaded.config._attn_implementation == "sdpa"
        with pytest.raises(PlanError, match="nothing to restore"):
            sa.restore(loaded)
        loaded.save_pretrained(tmp_path / "dense")
        assert "sparseattn" not in (tmp_path / "dense" / "config.json").read_text()
    loaded = plain()
    run(loaded, **inputs)
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(run(type(model).from_pretrained(tmp_path / "again"), **inputs), sparse)


def test_a_model_that_was_loaded_dense_says_so(tmp_path):
    sa.sparsify(build("bert"), PLAN).save_pretrained(tmp_path)
    model = transformers.BertModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert sa.plan_of(model) is None
    with pytest.raises(PlanError, match="BertModel is not sparsified; there is nothing to descr"):
        sa.describe(model, batch())
    assert "sparseattn" not in sa.restore(model).config.to_dict()
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
def test_a_sentence_transformer_comes_back_as_one(family, tmp_path):
    model = sa.sparsify(sentence_transformer(tmp_path / "encoder", family), PLAN)
    model.save(str(tmp_path / "st"))
    texts = ["the fox sat the fox sat", "the fox"]
    sparse = model.encode(texts, convert_to_tensor=True)
    loaded = sa.load(tmp_path / "st", device="cpu")
    assert type(loaded) is type(model)
    assert sa.plan_of(loaded) == PLAN
    assert torch.equal(loaded.encode(texts, convert_to_tensor=True), sparse)
    assert type(load_model(str(tmp_path / "st"))) is type(model)
    dense = sa.restore(model).encode(texts, convert_to_tensor=True)
    copies = [loaded]
    if family == "bert":  # which SentenceTransformer can load by itself
        plain = type(model)(str(tmp_path / "st"), device="cpu")
        assert sa.plan_of(plain) == PLAN
        assert sa.describe(plain, batch((9,))).sparsity > 0
        assert torch.equal(plain.encode(texts, convert_to_tensor=True), sparse)
        copies.append(plain)
    for copied in copies:
        assert torch.equal(sa.restore(copied).encode(texts, convert_to_tensor=True), dense)
        copied.save(str(tmp_path / "dense"))
        with pytest.raises(PlanError, match="carries no plan; load it with SentenceTr"):
            sa.load(tmp_path / "dense", device="cpu")


def test_a_cross_encoder_re_ranks_under_a_plan_and_comes_back_as_one(tmp_path):
    """Query tokens do not see the document, which the attention of every layer shows."""
    st = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    model = st.CrossEncoder(str(sa.resolve(DEFAULT)), num_labels=1, device="cpu")
    query, documents = "who sat on the mat?", ["the fox sat " * 30, "a dog", "the mat was here"]
    pairs = [(query, document) for document in documents]
    dense = model.predict(pairs, convert_to_tensor=True)
    plan = "neighbor(radius=4) & segment(query=1) | segment(key=0) | global(cls, columns=false)"
    assert sa.sparsify(model, plan) is model
    sparse = model.predict(pairs, convert_to_tensor=True)
    assert not torch.allclose(sparse, dense)
    ranked = model.rank(query, documents)
    assert [one["corpus_id"] for one in ranked] == sparse.argsort(descending=True).tolist()
    alone = torch.cat([model.predict([pair], convert_to_tensor=True) for pair in pairs])
    torch.testing.assert_close(alone, sparse, atol=1e-6, rtol=0)
    hidden = []
    hook = encoder_of(model).register_forward_hook(
        lambda _module, _inputs, out: hidden.append(out.last_hidden_state[0, 1:7])
    )
    for pair in pairs[:2]:
        model.predict([pair])
    hook.remove()
    torch.testing.assert_close(hidden[0], hidden[1], atol=1e-5, rtol=0)
    model.save_pretrained(str(tmp_path))
    loaded = sa.load(tmp_path, device="cpu")
    assert type(loaded) is st.CrossEncoder
    assert sa.plan_of(loaded) == sa.Plan.of(plan)
    assert torch.equal(loaded.predict(pairs, convert_to_tensor=True), sparse)
    with pytest.raises(PlanNotAppliedError, match=r"load it with sparseattn\.load"):
        st.CrossEncoder(str(tmp_path), device="cpu").predict(pairs)
    assert torch.equal(sa.restore(loaded).predict(pairs, convert_to_tensor=True), dense)


@pytest.fixture
def ranker():
    """A re-ranker under a window, pairs for it, and how it scores them."""
    st = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    model = st.CrossEncoder(str(sa.resolve(DEFAULT)), num_labels=1, device="cpu").eval()
    sa.sparsify(model, "neighbor(radius=4) | global(cls)")
    documents = ["the fox sat " * 30, "the mat was here", "a dog?", "rain all day", "a cat on it"]
    pairs = [("who sat on the mat?", document) for document in documents]
    return model, pairs, scores_of(model, pairs)


def scores_of(model, pairs):
    return model.predict(pairs, convert_to_tensor=True, activation_fn=torch.nn.Identity())


def agreement(scores, others):
    return float(torch.corrcoef(torch.stack([scores, others]))[0, 1])


def test_a_cross_encoder_in_int8_scores_alike_and_comes_back(ranker, tmp_path):
    model, pairs, expected = ranker
    sa.quantize(model)
    scores = scores_of(model, pairs)
    assert 0.97 < agreement(scores, expected) < 0.999999
    model.save_pretrained(str(tmp_path))
    loaded = sa.load(tmp_path, device="cpu")
    assert type(loaded) is type(model)
    for one, other in zip(encoder_of(loaded).modules(), encoder_of(model).modules(), strict=True):
        if isinstance(other, Int8Linear):
            assert torch.equal(one.weight, other.weight)
    again = scores_of(loaded, pairs)
    assert (again - scores).abs().max() < 0.01 * scores.std()  # another backend may be at work


@pytest.mark.slow
def test_a_cross_encoder_in_an_int8_file_scores_alike(ranker, tmp_path):
    pytest.importorskip("openvino")
    model, pairs, expected = ranker
    made = sa.export(model, tmp_path / "ranker.xml", int8=True)
    columns = model.tokenizer(*zip(*pairs, strict=True), padding=True, return_tensors="pt")
    scores = FORMATS["openvino"].run(made.path, 1)(dict(columns))["logits"][:, 0]
    assert agreement(scores, expected) > 0.97


def test_a_boolean_mask_that_is_changed_in_place(tmp_path):
    model = sa.sparsify(build("bert"), PLAN)
    model.save_pretrained(tmp_path)
    plain = transformers.BertModel.from_pretrained(tmp_path)
    inputs = batch((23, 7))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            mask = inputs["attention_mask"].bool()
            for length in (20, 12):
                plain(inputs["input_ids"], mask)
                mask[0, length:] = False
                expected = model(inputs["input_ids"], mask)[0]
                assert torch.equal(plain(inputs["input_ids"], mask)[0], expected)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_another_encoder_in_its_place_is_noticed(family, tmp_path):
    model, inputs = build(family, "ForSequenceClassification"), batch()
    sa.sparsify(model, "neighbor(radius=1)")
    setattr(model, family, build(family, hidden_act="relu"))
    with pytest.raises(PlanNotAppliedError, match=r"encoder of \w+ was replaced after sparsify"):
        model(**inputs)
    sa.sparsify(model, PLAN)
    expected = run(model, **inputs)
    model.save_pretrained(tmp_path)
    assert sa.plan_of(sa.load(tmp_path)) == sa.plan_of(model) == PLAN
    sa.restore(model)
    assert not torch.equal(run(model, **inputs), expected)


@pytest.mark.parametrize("plain", [True, False])
def test_another_encoder_in_a_model_without_hooks_is_noticed(plain, tmp_path):
    """A plainly loaded model, and one whose encoder alone was sparsified."""
    model, inputs = build("bert", "ForSequenceClassification"), batch()
    sa.sparsify(model if plain else model.bert, PLAN)
    if plain:
        model.save_pretrained(tmp_path / "sparse")
        model = type(model).from_pretrained(tmp_path / "sparse")
    kept, model.bert = model.bert, build("bert", hidden_act="relu")
    message = r"encoder of BertForSequenceClassification was replaced by one that follows no plan"
    for each in (model, copy.deepcopy(model)):
        with pytest.raises(PlanNotAppliedError, match=message):
            each(**inputs)
    dense, model.bert = model.bert, kept
    assert sa.plan_of(model) == PLAN
    sparse = run(model, **inputs)
    model.bert = dense
    expected = run(sa.restore(copy.deepcopy(model)), **inputs)
    assert not torch.equal(run(sa.sparsify(model, PLAN), **inputs), expected)
    model.bert = kept
    assert torch.equal(run(sa.sparsify(model, PLAN), **inputs), sparse)


def test_an_encoder_that_follows_the_plan_may_replace_one(tmp_path):
    model, inputs = build("bert", "ForSequenceClassification"), batch()
    expected = run(sa.sparsify(model, PLAN), **inputs)
    model.save_pretrained(tmp_path)
    model = type(model).from_pretrained(tmp_path)
    model.bert = transformers.BertModel.from_pretrained(tmp_path)
    assert torch.equal(run(model, **inputs), expected)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("plain", [False, True])
def test_restoring_where_the_encoder_was_replaced(family, plain, tmp_path):
    model = build(family, "ForSequenceClassification")
    before = model.config._attn_implementation
    sa.sparsify(model, "neighbor(radius=1)")
    if plain and family == "bert":
        model.save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    setattr(model, family, build(family, hidden_act="relu"))
    sa.restore(model)
    assert model.config._attn_implementation == before
    assert not model._forward_pre_hooks
    run(model, **batch())
    model.save_pretrained(tmp_path)
    assert "sparseattn" not in (tmp_path / "config.json").read_text()
    with pytest.raises(PlanError, match="is not sparsified; there is nothing to restore"):
        sa.restore(model)


@pytest.mark.parametrize("kind", [None, "ForSequenceClassification"])
def test_a_shallow_copy_does_not_change_the_original(kind):
    model, inputs = sa.sparsify(build("bert", kind), PLAN), batch()
    expected = run(model, **inputs)
    shallow = copy.copy(model)
    for change in (lambda: sa.sparsify(shallow, "self()"), lambda: sa.restore(shallow)):
        with pytest.raises(UnsupportedModelError, match=r"a shallow copy.*use copy.deepcopy"):
            change()
    assert torch.equal(run(model, **inputs), expected)
    sa.sparsify(copy.deepcopy(model), "self()")
    assert torch.equal(run(model, **inputs), expected)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", [None, "ForSequenceClassification"])
def test_a_shallow_copy_of_a_model_without_hooks_is_refused(kind, plain, tmp_path):
    model, inputs = build("bert", kind), batch()
    if plain:
        sa.sparsify(model, PLAN).save_pretrained(tmp_path)
        model = type(model).from_pretrained(tmp_path)
    expected, before = run(model, **inputs), sa.plan_of(model)
    shallow = copy.copy(model)
    for each in (shallow, model):
        with pytest.raises(UnsupportedModelError, match=r"a shallow copy.*use copy.deepcopy"):
            sa.sparsify(each, "self()")
    assert sa.plan_of(model) == before
    assert torch.equal(run(model, **inputs), expected)
    held, shallow = model._modules, None
    assert not torch.equal(run(sa.sparsify(model, "self()"), **inputs), expected)
    assert held is model._modules


def test_columns_of_a_call_that_failed_are_not_used_again():
    model, inputs = build("bert", "ForSequenceClassification"), batch((6,))
    sa.sparsify(model, "sentence()")
    sentences = torch.tensor([[0, 0, 0, 1, 1, 1]])
    failing = model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(**inputs, sentence_index=sentences)
    failing.remove()
    with pytest.raises(SparseAttnError, match="Annotator"):
        model(**inputs)


def test_code_beside_a_model_is_never_run(tmp_path, monkeypatch):
    def asked(*_):
        raise AssertionError("it asks")

    monkeypatch.setattr("builtins.input", asked)
    sa.sparsify(build("bert"), PLAN).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    path.write_text(json.dumps({**config, "model_type": "mine", "auto_map": classes}))
    (tmp_path / "code.py").write_text("raise SystemExit('it runs')")
    place = str(tmp_path)
    for load in (sa.load, load_model, lambda name: load_part(name, "AutoModel")):
        with pytest.raises(SparseAttnError, match="needs code that lies beside it") as caught:
            load(place)
        assert "\n" not in str(caught.value)
    assert len(identity(place)) == 16
    with pytest.raises(DataError, match=r"^code that comes with a model is never run: .*trust"):
        sa.load(place, trust_remote_code=True)


def test_a_package_is_not_imported_to_find_its_model(tmp_path, monkeypatch):
    build("bert").save_pretrained(tmp_path / "loud" / "inner" / "model")
    (tmp_path / "loud" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "loud" / "inner" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert sa.resolve("package:loud.inner") == str(tmp_path / "loud" / "inner" / "model")
    assert "loud" not in sys.modules


NAMED = "a model is named by a local folder, a Hub name or package:NAME, a string"
MODEL = "a model is a transformers model or a wrapper around one, not 'bert'; load it first"
BATCH = "a plan is counted over a batch, such as tokenizer(texts, padding=True, return_tensors='pt"


@pytest.mark.parametrize(
    ("slip", "error", "message"),
    [
        (lambda _: sa.sparsify("bert", "self()"), UnsupportedModelError, MODEL),
        (lambda _: sa.plan_of("bert"), UnsupportedModelError, MODEL),
        (lambda _: sa.restore("bert"), UnsupportedModelError, MODEL),
        (lambda _: sa.lengthen("bert", to=99), UnsupportedModelError, MODEL),
        (lambda _: sa.probe("bert", "self()", ["a"]), UnsupportedModelError, MODEL),
        (lambda _: sa.calibrate("bert", ["a"], sparsity=0.8), UnsupportedModelError, MODEL),
        (lambda _: sa.learn_degrees("bert", ["a"], 0.8), UnsupportedModelError, MODEL),
        (lambda m: sa.calibrate(m, "a text", sparsity=0.8), DataError, "texts is one text; give"),
        (lambda _: sa.load(3), DataError, f"{NAMED}; got int"),
        (lambda m: sa.load(m), DataError, f"{NAMED}; got BertModel"),
        (lambda _: sa.resolve(3), DataError, f"{NAMED}; got int"),
        (lambda m: sa.sparsify(m, {}), PlanError, "the plan is empty, so the model would run dens"),
        (lambda m: sa.sparsify(m, {0: {}}), PlanError, "the plan is empty, so the model would run"),
        (lambda m: sa.describe(m), DataError, f"{BATCH}') makes; got none"),
        (lambda m: sa.describe(m, "a text"), DataError, f"{BATCH}') makes; got 'a text'"),
        (lambda m: sa.describe(m, ["a text"]), DataError, f"{BATCH}') makes; got ['a text']"),
        (lambda m: m(["a text"]), DataError, "input_ids must be a tensor; got a list: tokenize te"),
        (lambda m: m("a text"), DataError, "input_ids must be a tensor; got a str: tokenize texts"),
        (
            lambda m: sa.describe(m, {"input_ids": [[5, 6]], "attention_mask": [[1, 1]]}),
            DataError,
            "input_ids must be a tensor; got a list: tokenize texts first: tokenizer(texts, ",
        ),
        (
            lambda m: m(torch.tensor([5, 6])),
            DataError,
            "input_ids must be [batch, length]; got [2]: tokenize texts first",
        ),
        (lambda m: m(torch.zeros(1, 0)), DataError, "a batch without tokens: give texts, and the"),
        (lambda m: m(torch.zeros(0, 5)), DataError, "a batch without tokens: give texts, and the"),
        (
            lambda m: m(inputs_embeds=torch.zeros(1, 0, 32)),
            DataError,
            "a batch without tokens: give texts, and the",
        ),
        (
            lambda m: sa.sparsify(m, "self()", layers="2:1"),
            PlanError,
            "layer selection '2:1' names none of the model's 3",
        ),
    ],
)
def test_slips_are_one_line_that_says_what_to_pass(slip, error, message):
    model = sa.sparsify(build("bert"), PLAN)
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        slip(model)
    assert "\n" not in str(caught.value)
    assert sa.plan_of(model) == PLAN
