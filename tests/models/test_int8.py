"""Linear layers in 8-bit integers: computed by hand, saved and loaded, and what is refused."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import sparseattn as sa
from sparseattn.models.int8 import Int8Linear, cuts_sums
from sparseattn.models.load import quiet
from tests.models.families import batch, build, run, sentence_transformer

WINDOW = "neighbor(radius=3) | global(cls)"


def int8(family="bert", **changes):
    return sa.quantize(sa.sparsify(build(family, **changes), WINDOW))


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(40, 24, bias=bias).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cut", [cuts_sums(), True])
def test_a_layer_by_hand(bias, cut, monkeypatch):
    """Integers of weights and inputs in float64: only their products are summed."""
    monkeypatch.setattr("sparseattn.models.int8.cuts_sums", lambda: cut)
    levels = 64 if cut else 127
    layer, states = linear(bias), torch.randn(2, 300, 40) * torch.logspace(-3, 3, 300)[:, None]
    states[0, 0] = 0
    with torch.no_grad():
        output = Int8Linear(layer).eval()(states)
        by_row = layer.weight.double().abs().amax(1, keepdim=True) / levels
        weights = (layer.weight.double() / by_row).round() * by_row
        by_token = states.double().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
        expected = (states.double() / by_token).round() * by_token @ weights.T
        expected = expected if layer.bias is None else expected + layer.bias
    # Scales have 16 bits, and an input or weight halfway between two integers may go to either.
    apart = ((output - expected).abs().amax(-1) / by_token[..., 0]).max()
    assert apart < 1.1 * float(weights.abs().max()) * 127 / levels + 0.01
    assert (output - expected).norm() < 1e-3 * expected.norm()


def test_a_token_does_not_depend_on_its_batch():
    layer, states = Int8Linear(linear()), torch.randn(3, 100, 40)
    louder = states.clone()
    louder[1:] *= 1000
    assert torch.equal(layer(states)[0], layer(louder)[0])
    assert torch.equal(layer(states)[0, :1], layer(states[0, :1]))


def test_the_state_dict_holds_numbers_that_give_the_same_integers():
    first = Int8Linear(linear())
    state = first.state_dict()
    assert {name: value.dtype for name, value in state.items()} == {
        "weight": torch.float32,
        "bias": torch.float32,
    }
    assert (state["weight"] - linear().weight).abs().max() <= 0.51 * first.scale.max()
    second = Int8Linear(nn.Linear(40, 24)).eval()
    second(torch.zeros(1, 40))  # packs its weights
    second.load_state_dict(state)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.scale, second.scale)
    states = torch.randn(5, 40)
    assert torch.equal(first(states), second(states))


def test_a_model_is_near_and_keeps_its_plan():
    model = sa.sparsify(build("bert", "ForSequenceClassification"), WINDOW)
    columns = batch((40, 9), "left")
    expected = run(model, **columns)
    head = model.classifier
    assert sa.quantize(model) is model
    assert str(sa.plan_of(model)) == str(sa.Plan.of(WINDOW))
    assert model.classifier is head
    assert type(model.bert.pooler.dense) is nn.Linear
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 3 * 6
    output = model(**columns).logits  # outside no_grad, too
    assert not torch.equal(output, expected)
    assert (output - expected).norm() < 0.03 * expected.norm()
    assert "sparsity" in str(sa.describe(model, columns))
    assert sa.plan_of(sa.restore(model)) is None
    assert torch.equal(run(sa.sparsify(model, WINDOW), **columns), output)
    assert torch.equal(run(deepcopy(model), **columns), output)


def test_a_token_out_of_reach_changes_nothing():
    model = sa.quantize(sa.sparsify(build("bert", num_hidden_layers=1), "neighbor(radius=3)"))
    ids = batch((100,))["input_ids"]
    other = ids.clone()
    other[0, 50] += 1
    before, after = (run(model, input_ids=x)[0] for x in (ids, other))
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == list(range(47, 54))


@pytest.mark.parametrize("family", ["albert", "distilbert", "mobilebert", "modernbert", "mpnet"])
def test_families(family):
    model = sa.sparsify(build(family), WINDOW)
    columns = batch((40, 9))
    expected = run(model, **columns)
    output = run(sa.quantize(model), **columns)
    assert not torch.equal(output, expected)
    assert (output - expected).norm() < 0.03 * expected.norm()


def test_saved_and_loaded_again(tmp_path):
    model, columns = int8(), batch()
    with quiet():
        model.save_pretrained(tmp_path)
        loaded = sa.load(tmp_path)
        plain = type(model).from_pretrained(tmp_path)
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".json"] == [
        ".safetensors"
    ]
    assert torch.equal(run(loaded, **columns), run(model, **columns))
    with pytest.raises(sa.errors.UnsupportedModelError, match="already"):
        sa.quantize(loaded)
    # Other programs read an ordinary model, whose weights are rounded.
    assert not any(isinstance(module, Int8Linear) for module in plain.modules())
    expected = run(sa.sparsify(build("bert"), WINDOW), **columns)
    assert (run(plain, **columns) - expected).norm() < 0.03 * expected.norm()


def test_a_sentence_transformer(tmp_path):
    model = sa.sparsify(sentence_transformer(tmp_path / "stock", "bert"), WINDOW)
    sa.quantize(model).to(torch.bfloat16)
    texts = ["the fox sat on the mat", "the fox"]
    with quiet():
        model.save(str(tmp_path / "saved"))
        loaded = sa.load(tmp_path / "saved", device="cpu")
    assert any(isinstance(module, Int8Linear) for module in loaded.modules())
    assert (loaded.encode(texts) == model.encode(texts)).all()


@pytest.mark.parametrize("also_int8", [False, True])
def test_bfloat16(tmp_path, also_int8):
    model = sa.sparsify(build("bert"), WINDOW)
    columns = batch((40, 9))
    expected = run(model, **columns)
    model = (sa.quantize(model) if also_int8 else model).to(torch.bfloat16)
    output = run(model, **columns)
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).norm() < 0.03 * expected.norm()
    with quiet():
        model.save_pretrained(tmp_path)
        loaded = sa.load(tmp_path)
    assert torch.equal(run(loaded, **columns), output)


def test_what_cannot_be_is_refused_in_a_line():
    model = sa.sparsify(build("bert"), WINDOW)
    for make, message in (
        (lambda: sa.quantize(build("bert").train()), "it is being trained"),
        (lambda: sa.quantize(build("bert").to("meta")), "it is on meta"),
        (lambda: sa.quantize(sa.quantize(model)), "it is already"),
        (lambda: model.train()(**batch()), "an int8 model cannot be trained"),
        (lambda: Int8Linear(linear())(torch.zeros(1, 40, requires_grad=True)), "cannot be trained"),
        (lambda: Int8Linear(linear())(torch.zeros(1, 40, device="meta")), "run on CPUs, not on"),
    ):
        with pytest.raises(sa.errors.UnsupportedModelError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_merged_before():
    peft = pytest.importorskip("peft")
    model = sa.sparsify(build("bert"), WINDOW)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).eval()
    with pytest.raises(sa.errors.UnsupportedModelError, match="merge its adapter before"):
        sa.quantize(adapted)
    assert sa.quantize(adapted.merge_and_unload()) is not None


def test_another_kind_of_numbers_is_an_error(tmp_path):
    model = int8()
    model.config.sparseattn["quantized"] = "int4"
    with quiet():
        model.save_pretrained(tmp_path)
    with pytest.raises(sa.errors.PlanError, match="'int4', not int8"):
        sa.load(tmp_path)
