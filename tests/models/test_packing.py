"""Packed encoders: the outputs and gradients of the padded ones, without their padding."""

import copy

import pytest
import torch

import sparseattn as sa
from tests.models.families import INTERFACE, MASKED, OWN, batch, build, run, sentence_transformer

FAMILIES = ["bert", "roberta", "distilbert", "albert", "modernbert", "nomic-bert", "eurobert"]
PLANS = [None, {0: "neighbor(2) | global(cls)", 1: {"0": "self()", "1:": "dilated(2, 3)"}}]


#: A linear layer of each family.
_WIDE = {
    "distilbert": "transformer.layer.0.ffn.lin1",
    "albert": "encoder.albert_layer_groups.0.albert_layers.0.ffn",
    "modernbert": "layers.0.mlp.Wi",
    "nomic_bert": "layers.0.mlp.up_proj",
    "eurobert": "layers.0.mlp.up_proj",
}


def rows_of(model, inputs):
    """Rows that a linear layer is given in a pass."""
    seen = []
    linear = model.get_submodule(_WIDE.get(model.config.model_type, "encoder.layer.0.output.dense"))
    handle = linear.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[:-1].numel())
    )
    run(model, **inputs)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("plan", PLANS, ids=["dense", "sparse"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_outputs(family, plan):
    model = build(family)
    if plan is not None:
        sa.sparsify(model, plan)
    twin = sa.packed(copy.deepcopy(model))
    for side in ("left", "right"):
        for lengths in ((23, 7, 1), (1, 2), (31, 17, 31, 5), (9, 9)):
            inputs = batch(lengths, side)
            real = inputs["attention_mask"].bool()
            expected = run(model, **inputs)
            found = run(twin, **inputs)
            assert found.shape == expected.shape
            torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=1e-5)
    assert rows_of(twin, batch((23, 7, 1))) == 31
    assert rows_of(twin, batch((9, 9))) == 18
    ids = batch((23, 7))["input_ids"]
    assert torch.equal(
        run(twin, input_ids=ids), run(sa.restore(twin) if plan is None else model, input_ids=ids)
    )


@pytest.mark.parametrize("family", [each for each in INTERFACE if each != "t5-encoder"])
def test_every_family_of_the_interface(family):
    inputs = batch()
    real = inputs["attention_mask"].bool()
    changes = {"position_embedding_type": "rotary"} if family == "esm" else {}
    model = sa.sparsify(build(family, **changes), "neighbor(radius=2)")
    expected = run(model, **inputs)[real]
    torch.testing.assert_close(run(sa.packed(model), **inputs)[real], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("plan", PLANS, ids=["dense", "sparse"])
def test_the_same_gradients(plan, checkpointing):
    inputs = batch()
    real = inputs["attention_mask"].bool()
    grads = []
    for packs in (False, True):
        model = sa.sparsify(build("bert"), plan or "full()").train()
        if packs:
            sa.packed(model)
            if checkpointing:
                model.activation_checkpointing_enable({"use_reentrant": False})
        output = model(**inputs)
        (output.last_hidden_state[real].square().sum() + output.pooler_output.sum()).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1])
    for expected, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_batch_of_padding_alone():
    inputs = batch((5, 4))
    inputs["attention_mask"][:] = 0
    model = sa.sparsify(build("bert"), "neighbor(2)")
    expected = run(model, **inputs)
    assert torch.equal(run(sa.packed(model), **inputs), expected)


def test_heads_and_hidden_states_see_the_padded_batch():
    model = sa.sparsify(build("bert", "ForSequenceClassification"), "neighbor(2) | global(cls)")
    inputs = batch()
    with torch.no_grad():
        expected = model(**inputs, output_hidden_states=True)
        found = sa.packed(model)(**inputs, output_hidden_states=True)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    real = inputs["attention_mask"].bool()
    for mine, its in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], its[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pattern", ["similarity(k=2)", "global(sep)", "random(degree=3)"])
def test_patterns_that_look_at_words(pattern):
    """Separators and similar words are those of a token's own text."""
    inputs = batch()
    inputs["special_tokens_mask"] = (inputs["input_ids"] < 20).long()
    model = build("bert")
    model.config.sep_token_id = int(inputs["input_ids"][0, 5])
    sa.sparsify(model, f"neighbor(1) | {pattern}")
    expected = run(model, **inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(run(sa.packed(model), **inputs)[real], expected[real])


def test_sentence_transformers(tmp_path):
    st = sentence_transformer(tmp_path, "bert")
    texts = ["the fox sat on the mat", "fox", "the mat the mat the mat the mat sat"]
    expected = st.encode(texts, convert_to_tensor=True)
    assert sa.packed(st) is st
    torch.testing.assert_close(st.encode(texts, convert_to_tensor=True), expected)


def test_restore_and_saving_leave_no_trace(tmp_path):
    model, inputs = build("bert"), batch()
    stock, config = run(model, **inputs), model.config.to_dict()
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    sa.packed(sa.packed(model))
    twin = copy.deepcopy(model)
    twin.save_pretrained(tmp_path)
    assert "sparseattn" not in (tmp_path / "config.json").read_text()
    sa.restore(model)
    assert torch.equal(run(model, **inputs), stock)
    assert model.config.to_dict() == config
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert rows_of(twin, inputs) == 31


def test_the_plan_may_change():
    model, inputs = sa.packed(build("bert")), batch()
    sa.sparsify(model, "neighbor(radius=1)")
    expected = run(sa.sparsify(build("bert"), "neighbor(radius=1)"), **inputs)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(run(model, **inputs)[real], expected[real], atol=1e-5, rtol=0)
    assert rows_of(model, inputs) == 31


@pytest.mark.parametrize("family", [*OWN, *MASKED, "t5-encoder"])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_others_are_refused_and_stay_as_they_are(family):
    model, inputs = build(family), batch()
    expected = run(model, **inputs)
    with pytest.raises(sa.errors.UnsupportedModelError, match="cannot be packed: ") as raised:
        sa.packed(model)
    assert "\n" not in str(raised.value)
    assert torch.equal(run(model, **inputs), expected)
    assert sa.plan_of(model) is None
