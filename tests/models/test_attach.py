"""sparsify, restore, describe and the guards."""

from __future__ import annotations

import pickle
import re
from copy import deepcopy

import pytest
import torch
import transformers
from torch import nn

import sparseattn as sa
from sparseattn.errors import (
    AnnotationError,
    BackendError,
    PlanError,
    PlanNotAppliedError,
    UnsupportedModelError,
)
from sparseattn.plan import Plan
from tests.models.families import batch, build, run


def test_sparsifying_again_replaces_the_plan():
    model, inputs = build("bert"), batch((23,))
    stock = run(model, **inputs)
    sa.sparsify(model, "neighbor(radius=0)")
    sa.sparsify(model, "full()")
    assert torch.equal(run(model, **inputs), stock)
    sa.restore(model)
    with pytest.raises(PlanError, match="BertModel is not sparsified; there is nothing to restore"):
        sa.restore(model)


def test_context_manager_puts_back_what_was_there():
    model, inputs = build("bert"), batch((23,))
    stock = run(model, **inputs)
    with sa.sparsified(model, "neighbor(radius=1)", layers="1:"):
        sparse = run(model, **inputs)
        with sa.sparsified(model, "neighbor(radius=0)"):
            assert not torch.equal(run(model, **inputs), sparse)
        assert torch.equal(run(model, **inputs), sparse)
    assert torch.equal(run(model, **inputs), stock)
    with pytest.raises(ZeroDivisionError), sa.sparsified(model, "neighbor(radius=1)"):
        _ = 1 / 0
    assert torch.equal(run(model, **inputs), stock)


def test_describe_counts_this_batch_and_names_the_backend():
    model, inputs = build("bert"), batch((23, 7))
    report = sa.describe(sa.sparsify(model, "neighbor(radius=1)", layers="1:"), inputs)
    pairs = 23**2 + 7**2
    allowed = 23 * 3 - 2 + 7 * 3 - 2
    assert [layer.allowed for layer in report.layers] == [4 * pairs, 4 * allowed, 4 * allowed]
    assert report.sparsity == pytest.approx(1 - (pairs + 2 * allowed) / (3 * pairs))
    assert report.layers[1].degrees == {2: 4 * 4, 3: 4 * (30 - 4)}
    assert report.tokens == 30
    assert report.block_density == pytest.approx(2 * 23**2 / pairs)
    assert report.layers[2].reaches_cls == 1.0
    text = str(report)
    assert "neighbor(radius=1)" in text
    assert "counted over 2 texts, 30 real tokens, 3 layers, all heads" in text
    assert "masked" in text


def test_a_report_counts_one_text_in_the_singular():
    report = sa.describe(sa.sparsify(build("bert", num_hidden_layers=1), "self()"), batch((1,)))
    assert "counted over 1 text, 1 real token, 1 layer, all heads" in str(report)


def test_stochastic_state_is_left_alone():
    model = build("bert").train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    sa.sparsify(model, "neighbor(radius=1)")
    assert torch.equal(torch.rand(3), expected)
    assert model.training


# Guards: a sparsified model never runs dense without a word, and sparsify() mends what was lost.


def _another_implementation(model):
    model.set_attn_implementation("sdpa")


def _no_forward(model):
    model(**batch())  # whose plan is not to be followed again
    del model.forward


def _no_layer_forward(model):
    del model.encoder.layer[1].attention.attn.forward


def _another_layer(model):
    model.encoder.layer[1] = deepcopy(build("bert").encoder.layer[1])
    model.encoder.layer[1].attention.self.config = model.config


def _layers_that_change_places(model):
    layers = model.encoder.layer
    layers[0], layers[2] = layers[2], layers[0]


def _wrapped_layers_that_change_places(model):
    layers = model.encoder.layer
    layers[0], layers[2] = _Around(layers[2]), _Around(layers[0])


def _a_planned_layer(model):
    layer = deepcopy(model).encoder.layer[2]
    for module in layer.modules():
        if hasattr(module, "config"):
            module.config = model.config
    layer.load_state_dict(model.encoder.layer[1].state_dict())
    model.encoder.layer[1] = layer


def _pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    ("family", "lose", "message"),
    [
        ("bert", _another_implementation, r"its attn_implementation is now 'sdpa'"),
        ("bert", _no_forward, r"the hooks of sparsify\(\) are gone"),
        ("bert", _another_layer, r"BertSelfAttention was not there when the model was sparsified"),
        ("bert", _a_planned_layer, r"not by its attention layers 0 to 2, but by 0, 2"),
        ("mpnet", _a_planned_layer, r"not by its attention layers 0 to 2, but by 0, 2"),
        ("bert", _pickled, r"the hooks of sparsify\(\) are gone"),
        ("mpnet", _no_forward, r"no plan reached MPNetSelfAttention"),
        (
            "mpnet",
            _no_layer_forward,
            r"no plan reached MPNetSelfAttention",
        ),
        ("mpnet", _pickled, r"no plan reached MPNetSelfAttention"),
    ],
)
def test_what_was_lost_is_noticed_and_mended(family, lose, message):
    model, inputs = sa.sparsify(build(family), "neighbor(radius=1)"), batch()
    expected = run(model, **inputs)
    model = lose(model) or model
    with pytest.raises(PlanNotAppliedError, match=rf"{message}.*; call sparsify\(\) again"):
        model(**inputs)
    assert torch.equal(run(sa.sparsify(model, "neighbor(radius=1)"), **inputs), expected)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("move", [_layers_that_change_places, _wrapped_layers_that_change_places])
def test_layers_that_change_places_do_not_follow_each_others_plan(family, move):
    plan = {0: "neighbor(radius=1)", 2: "self()"}
    model, fresh, inputs = sa.sparsify(build(family), plan), build(family), batch()
    move(model), move(fresh)
    with pytest.raises(PlanNotAppliedError, match=r"not by .* 0 to 2, but by 2, 1, 0; call"):
        model(**inputs)
    expected = run(sa.sparsify(fresh, plan), **inputs)
    assert torch.equal(run(sa.sparsify(model, plan), **inputs), expected)


@pytest.mark.parametrize("wrap", [lambda layer: layer, lambda layer: _Around(layer)])
def test_a_layer_with_the_config_of_another_model_would_stay_dense(wrap):
    model, other, inputs = build("bert"), build("bert", hidden_act="relu"), batch()
    model.encoder.layer[1] = wrap(other.encoder.layer[1])
    dense = run(model, **inputs)
    message = r"^attention layer encoder.layer.1.*attention.self of BertModel has the config of ano"
    with pytest.raises(UnsupportedModelError, match=message):
        sa.sparsify(model, "self()")
    assert model.config._attn_implementation == "sdpa"
    assert sa.plan_of(model) is None
    assert torch.equal(run(model, **inputs), dense)
    next(m for m in model.encoder.layer[1].modules() if hasattr(m, "config")).config = model.config
    assert [
        layer.mean_degree for layer in sa.describe(sa.sparsify(model, "self()"), inputs).layers
    ] == [1, 1, 1]


class _Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def test_a_layer_that_was_wrapped_still_follows():
    model, inputs = sa.sparsify(build("bert"), "neighbor(radius=1)"), batch()
    expected = run(model, **inputs)
    model.encoder.layer[1] = _Around(model.encoder.layer[1])
    assert torch.equal(run(model, **inputs), expected)


def test_a_copy_can_be_sparsified_again():
    model, inputs = sa.sparsify(build("mpnet"), "neighbor(radius=1)"), batch()
    again = sa.sparsify(deepcopy(model), "neighbor(radius=1)")
    assert torch.equal(run(again, **inputs), run(model, **inputs))
    hooks = [len(layer.attention.attn._forward_pre_hooks) for layer in again.encoder.layer]
    assert hooks == [1, 1, 1]


@pytest.mark.parametrize("family", ["bert", "deberta", "roformer"])
@pytest.mark.parametrize("padded", [True, False])
def test_checkpoints_of_several_passes_are_recomputed_with_their_own_plans(family, padded):
    """Two forward passes before one backward pass."""
    model = sa.sparsify(build(family).train(), "random(degree=2) | global(cls)")
    first, second = batch((9, 3)), batch((9, 9))
    if not padded:
        first, second = ({"input_ids": batch((n, n))["input_ids"]} for n in (9, 5))

    def gradients():
        model.zero_grad()
        made = [model(**inputs).last_hidden_state[0].square().sum() for inputs in (first, second)]
        sum(made).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    wanted = gradients()
    model.activation_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(gradients(), wanted, atol=1e-5, rtol=1e-4)


def test_a_tiny_vocabulary():
    model = sa.sparsify(build("bert", vocab_size=3), "neighbor(radius=1)")
    assert model.config._attn_implementation == "sparseattn"


def replica(module):
    """What `torch.nn.parallel.replicate` makes of a module, on its own device."""
    copy = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copy._modules[name] = None if child is None else replica(child)
    for name, parameter in module._parameters.items():
        copy.__dict__[name] = None if parameter is None else parameter.detach()
    return copy


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("kind", [None, "ForSequenceClassification"])
def test_a_replica_does_not_run_without_a_word(family, kind):
    model = build(family, kind)
    inputs = batch((9, 5))
    with torch.no_grad():
        assert torch.equal(replica(model)(**inputs)[0], model(**inputs)[0])
        sa.sparsify(model, "neighbor(radius=1)")
        copy = replica(model)
        with pytest.raises(PlanNotAppliedError, match=r"DataParallel copies .* DistributedDataPar"):
            copy(**inputs)
        model(**inputs)
        sa.restore(model)
        assert torch.equal(replica(model)(**inputs)[0], model(**inputs)[0])


# Bad input.

ABSENT = "does not exist: the model has"
OWN = "goes with a single pattern; this"


@pytest.mark.parametrize(
    ("plan", "where", "message"),
    [
        ("neighbor(1)", {"layers": "6:"}, f"layer 6 {ABSENT} 3, 0 to 2"),
        ("neighbor(1)", {"layers": 3}, f"layer 3 {ABSENT} 3, 0 to 2"),
        ("neighbor(1)", {"layers": -4}, f"layer -4 {ABSENT} 3, 0 to 2"),
        ("neighbor(1)", {"heads": "4"}, f"head of layer 0: 4 {ABSENT} 4, 0 to 3"),
        ("neighbor(1)", {"layers": "a"}, "layer or head selection 'a' does not parse"),
        ("neighbor(1)", {"layers": 1.5}, "1.5 does not select layers or heads"),
        (Plan.of("self()"), {"layers": "1:"}, f"layers='1:' {OWN} Plan names its own layers"),
        ({0: "self()"}, {"layers": [1]}, f"layers='1' {OWN} dict names its own layers"),
        ({0: {1: "self()"}}, {"heads": -1}, f"heads='-1' {OWN} dict names its own heads"),
        (7, {}, "a plan is a spec string, a pattern, a Plan or a dict of layers; got 7"),
        ("full()", {"backend": "fast"}, "unknown backend 'fast'; choose from: flex, masked, refe"),
    ],
)
def test_wrong_plans_leave_the_model_alone(plan, where, message):
    model, inputs = build("bert"), batch()
    stock = run(model, **inputs)
    with pytest.raises((PlanError, BackendError), match=re.escape(message)):
        sa.sparsify(model, plan, **where)
    assert torch.equal(run(model, **inputs), stock)
    assert not hasattr(model.config, "sparseattn")


TINY = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: transformers.SqueezeBertModel(transformers.SqueezeBertConfig(
            **TINY, intermediate_size=32, embedding_size=32)),
         r"SqueezeBertModel cannot be sparsified.*BERT"),
        (lambda: transformers.T5Model(transformers.T5Config(
            vocab_size=99, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)),
         r"T5Model is an encoder-decoder"),
        (lambda: transformers.GPT2Model(transformers.GPT2Config(**TINY, n_positions=64)),
         r"GPT2Model attends causally"),
        (lambda: nn.Linear(2, 2), r"Linear holds no single transformers model"),
    ],
)  # fmt: skip
def test_unsupported_models_are_named_with_what_works(model, message):
    model = model()
    with pytest.raises(UnsupportedModelError, match=message):
        sa.sparsify(model, "full()")
    assert not hasattr(model, "config") or model.config._attn_implementation != "sparseattn"


def test_what_a_model_or_batch_cannot_serve_is_an_error():
    with pytest.raises(BackendError, match=r"'reference' cannot serve DebertaModel"):
        sa.sparsify(build("deberta"), "full()", backend="reference")
    model, inputs = sa.sparsify(build("bert"), "global(sep)"), batch((5,))
    message = "global(sep) needs 'separators', which this batch does not carry: pass tokenizer= to"
    with pytest.raises(AnnotationError, match=re.escape(message)):
        model(**inputs)
    with pytest.raises(PlanError, match=r"attention_mask must be \[batch, length\]"):
        model(input_ids=inputs["input_ids"], attention_mask=torch.ones(1, 1, 5, 5))


# Wrappers that people use.


def test_annotations_reach_the_encoder_through_a_head():
    model = build("bert", "ForSequenceClassification")
    inputs = batch((6, 4))
    sentences = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, -1, -1]])
    stock = run(model, **inputs)
    sa.sparsify(model, "sentence()")
    assert not torch.equal(run(model, **inputs, sentence_index=sentences), stock)
    report = sa.describe(model, {**inputs, "sentence_index": sentences})
    assert report.layers[0].allowed == 4 * (9 + 9 + 4 + 4)
    with pytest.raises(AnnotationError, match=r"Annotator"):
        model(**inputs)


def test_inputs_embeds_and_no_mask():
    model = sa.sparsify(build("bert"), "neighbor(radius=1)")
    inputs = batch((9,))
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    torch.testing.assert_close(run(model, inputs_embeds=embeds), run(model, **inputs))
    torch.testing.assert_close(run(model, inputs["input_ids"]), run(model, **inputs))


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["ForSequenceClassification", "Model"])
def test_lora_trains_and_follows_the_plan(kind):
    peft = pytest.importorskip("peft")
    inputs = batch((9, 4))
    task = "SEQ_CLS" if kind != "Model" else "FEATURE_EXTRACTION"
    model = build("bert", kind)
    config = peft.LoraConfig(task_type=task, target_modules=["query", "value"])
    lora = peft.get_peft_model(model, config)
    sa.sparsify(lora, "neighbor(radius=0)", layers="1:")
    lora.train()
    lora(**inputs)[0].square().sum().backward()
    assert any(p.grad is not None for n, p in lora.named_parameters() if "lora_A" in n)
    assert sa.describe(lora, inputs).layers[1].mean_degree == 1
    lora.eval()
    sparse = run(lora, **inputs)
    sa.restore(lora)
    assert not torch.equal(run(lora, **inputs), sparse)


def test_multi_worker_data_loader_and_stock_trainer(tmp_path):
    model = build("bert", "ForSequenceClassification")
    sa.sparsify(model, "neighbor(radius=1) | global(cls)", layers="1:")
    rows = [{"input_ids": [5 + i, 6, 7 + i], "attention_mask": [1, 1, 1], "labels": i % 2}
            for i in range(16)]  # fmt: skip
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=4, per_device_train_batch_size=4, dataloader_num_workers=2,
        report_to=[], use_cpu=True, disable_tqdm=True, logging_steps=4,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    before = model.classifier.weight.clone()
    assert trainer.train().training_loss > 0
    assert not torch.equal(model.classifier.weight, before)
