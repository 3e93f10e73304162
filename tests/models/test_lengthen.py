"""Longer texts for a model in memory."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import transformers
from torch import nn

import sparseattn as sa
from sparseattn.errors import BackendError, PlanError, UnsupportedModelError
from sparseattn.models.lengthen.lengthening import lengthened
from sparseattn.models.state import attached_state
from tests.models.families import batch, build, run

OLD = 66
LEARNED = (
    "bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "albert", "ernie",
    "mobilebert", "data2vec-text", "roberta-prelayernorm", "esm", "splinter", "layoutlm",
    "markuplm", "mpnet", "rembert", "megatron-bert",
)  # fmt: skip
ROTARY = ("modernbert", "nomic-bert", "jina-v3", "eurobert")
#: Families that start counting after the padding token's number.
SHIFTED = (
    "roberta", "xlm-roberta", "camembert", "data2vec-text", "roberta-prelayernorm", "mpnet", "esm",
)  # fmt: skip
STARTS = {**dict.fromkeys(SHIFTED, 2), "markuplm": 1}


def small(family, **changes):
    return build(family, max_position_embeddings=OLD, **changes)


def table(model):
    return model.embeddings.position_embeddings.weight


def everything(model):
    """All that lengthening may touch, as values."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    numbers = {
        (name, key): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if type(value) in (int, bool)
    }
    values = {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()}
    return values, numbers, model.config.to_dict()


@pytest.mark.parametrize("family", [*LEARNED, *ROTARY, "t5-encoder", "roformer"])
def test_outputs_at_old_lengths_are_bit_equal(family):
    model, to = small(family), 200
    limit = lengthened(deepcopy(model), to=to, plan=None).before
    assert limit == OLD - STARTS.get(family, 0)
    columns = [batch((limit,)), batch((limit, 7, 1)), batch((limit, 9), side="left")]
    before = [run(model, **c) for c in columns]
    assert sa.lengthen(model, to=to, plan=None) is model
    for expected, c in zip(before, columns, strict=True):
        assert torch.equal(run(model, **c), expected)
    assert run(model, **batch((to, 9))).isfinite().all()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "markuplm"])
def test_a_table_holds_its_positions_over_and_over(family):
    model = small(family)
    old = table(model).detach().clone()
    done = lengthened(model, to=200, plan=None)
    start, new = OLD - done.before, table(model)
    assert new.shape == (start + 200, *old.shape[1:])
    assert model.config.max_position_embeddings == start + 200
    assert torch.equal(new[:OLD], old)
    for position in range(200):
        assert torch.equal(new[start + position], old[start + position % done.before])
    assert done.copied == ("embeddings.position_embeddings.weight",)
    assert new.requires_grad
    assert model.get_submodule("embeddings.position_embeddings").num_embeddings == start + 200


@pytest.mark.parametrize("family", SHIFTED)
def test_the_last_position_is_used_and_there_is_none_after_it(family):
    model = sa.lengthen(small(family), to=200, plan=None)
    seen = []
    hook = model.embeddings.position_embeddings.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    columns = batch((200, 150), side="left")
    columns["input_ids"] = columns["input_ids"].where(columns["attention_mask"] > 0, 1)
    run(model, **columns)
    hook.remove()
    assert seen[0].tolist() == [list(range(2, 202)), [1] * 50 + list(range(2, 152))]
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        run(model, **batch((201,)))


def test_padding_on_the_left_keeps_its_position():
    model = sa.lengthen(small("roberta"), to=200, plan=None)
    whole, padded = batch((150,)), batch((200, 150), side="left")
    padded["input_ids"][1] = 1
    padded["input_ids"][1, 50:] = whole["input_ids"][0]
    both = run(model.double(), **padded)[1, 50:], run(model, **whole)[0]
    torch.testing.assert_close(*both, rtol=0, atol=1e-12)


def test_a_long_planned_model_computes_what_the_definition_says():
    model = small("roberta", num_hidden_layers=2, num_attention_heads=2).double()
    sa.lengthen(model, to=4096)
    assert sa.plan_of(model) == sa.Plan.of("neighbor(radius=64) | global(cls)")
    columns = batch((1500,))
    columns["input_ids"][0, :97], columns["attention_mask"][0, :97] = 1, 0
    found = {}
    for backend in ("reference", "masked", "tiled"):
        sa.sparsify(model, "neighbor(radius=64) | global(cls)", backend=backend)
        found[backend] = run(model, **columns)[0, 97:]
    for backend in ("masked", "tiled"):
        torch.testing.assert_close(found[backend], found["reference"], rtol=0, atol=1e-12)
    longest = sa.lengthen(small("bert"), to=8192)
    assert run(longest, **batch((8192,))).isfinite().all()


@pytest.mark.parametrize("family", ROTARY)
def test_rotary_models_keep_their_weights(family):
    model = small(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done = lengthened(model, to=200)
    assert done.how == "rotary positions: nothing to extend, only the limit was raised"
    assert done.copied == ()
    assert model.config.max_position_embeddings == 200
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_relative_and_fixed_positions():
    done = lengthened(small("t5-encoder"), to=200)
    assert done.how.startswith("relative positions, the same beyond some distance")
    unlimited = build("t5-encoder")
    del unlimited.config.max_position_embeddings
    done = lengthened(unlimited, to=200)
    assert (done.before, done.how) == (None, "relative positions: no new ones needed")
    for family, changes in (("roformer", {}), ("distilbert", {"sinusoidal_pos_embds": True})):
        done = lengthened(small(family, **changes), to=200)
        assert done.how == "fixed positions, computed further"
        longer = build(family, max_position_embeddings=200, **changes)
        (name,) = [one for one in done.computed if one.endswith(".weight")]
        assert torch.equal(done.model.get_parameter(name), longer.get_parameter(name))


class Odd(transformers.BertModel):
    """A model whose every parameter is not known."""

    def __init__(self, config):
        super().__init__(config)
        self.bias = nn.Parameter(torch.randn(config.max_position_embeddings))


def test_what_cannot_be_lengthened_says_why():
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    cases = {
        r"the size of encoder\.rel_embeddings\.weight \[132, 32\] follows max_position_embeddings, "
        r"and it is no table of absolute": small("deberta"),
        r"built with max_position_embeddings=200 it has other outputs at 90 tokens; it": (
            small("eurobert", rope_parameters=dynamic)
        ),
        r"built with max_position_embeddings=200 it has other outputs at 24": small(
            "deberta-v2", position_buckets=16, position_biased_input=False
        ),
        r"a run does not show how it knows where a token stands": small(
            "deberta-v2", relative_attention=False, position_biased_input=False
        ),
        r"the size of bias \[66\] follows": Odd(small("bert").config),
        r"it is int8; lengthen the model as it was before": sa.quantize(small("bert")),
        r"it does not read text \(input_ids\)$": transformers.ViTModel(
            transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
        ),
    }
    for message, model in cases.items():
        before = deepcopy((model.state_dict(), model.config.to_dict()))
        with pytest.raises(UnsupportedModelError, match=message) as caught:
            sa.lengthen(model, to=200)
        assert str(caught.value).startswith(f"{type(model).__name__} cannot be lengthened: ")
        assert "\n" not in str(caught.value)
        assert model.config.to_dict() == before[1]
        assert all(torch.equal(model.state_dict()[name], before[0][name]) for name in before[0])


@pytest.mark.parametrize("to", [0, -5, 2.5, True, "4096", None])
def test_a_length_that_is_none(to):
    with pytest.raises(UnsupportedModelError, match=r"whole number of tokens >= 1; got "):
        sa.lengthen(small("bert"), to=to)


@pytest.mark.parametrize(("family", "limit"), [("bert", 66), ("roberta", 64), ("modernbert", 66)])
def test_a_model_is_never_shortened(family, limit):
    model = small(family)
    for to in (limit, 10):
        with pytest.raises(UnsupportedModelError, match=rf"takes {limit} tokens already; {to} are"):
            sa.lengthen(model, to=to)
    assert attached_state(model) is None


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_a_model_with_adapters():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(small("bert"), peft.LoraConfig(target_modules=["query"]))
    message = r"does not describe: .*query.*; merge adapters"
    with pytest.raises(UnsupportedModelError, match=message):
        sa.lengthen(model, to=200)
    assert run(sa.lengthen(model.merge_and_unload(), to=200), **batch((200,))).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"plan": {9: "self()"}}, PlanError),
        ({"backend": "nothing"}, BackendError),
        ({}, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("planned", [False, True])
def test_a_failure_leaves_the_model_as_it_was(arguments, error, planned, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparseattn.models.lengthen.lengthening.random_outputs", interrupted)
    model = small("roberta")
    tokenizer = transformers.BertTokenizer({"[UNK]": 0, "a": 1}, model_max_length=64)
    if planned:
        sa.sparsify(model, "neighbor(radius=1)")
    model.train()
    model.encoder.layer[0].eval()
    before, expected = everything(model), run(deepcopy(model).eval(), **batch((40, 7)))
    with pytest.raises(error):
        sa.lengthen(model, tokenizer, to=200, **arguments)
    assert everything(model) == before
    assert tokenizer.model_max_length == 64
    assert (attached_state(model) is not None) == planned
    assert torch.equal(run(model.eval(), **batch((40, 7))), expected)


def test_models_whose_attention_cannot_be_reached_are_lengthened_dense():
    config = transformers.SqueezeBertConfig(
        vocab_size=99, hidden_size=32, embedding_size=32, num_hidden_layers=1,
        num_attention_heads=4, intermediate_size=64, max_position_embeddings=OLD,
    )  # fmt: skip
    model = transformers.SqueezeBertModel(config).eval()
    message = r"AttentionInterface.*without a plan it can be"
    with pytest.raises(UnsupportedModelError, match=message):
        sa.lengthen(model, to=200)
    assert model.config.max_position_embeddings == OLD
    assert run(sa.lengthen(model, to=200, plan=None), **batch((200,))).isfinite().all()


def test_plans_given_kept_and_taken_over():
    for plan in ("dependency() | global(cls)", "similarity(k=2) & sentence()"):
        assert sa.plan_of(sa.lengthen(small("bert"), to=100, plan=plan)) == sa.Plan.of(plan)
    model = sa.sparsify(small("bert"), "neighbor(radius=2)")
    expected = run(model, **batch((60, 7)))
    sa.lengthen(model, to=100, plan=None)
    assert sa.plan_of(model) == sa.Plan.of("neighbor(radius=2)")
    assert torch.equal(run(model, **batch((60, 7))), expected)
    sa.lengthen(model, to=150, plan="self()")
    assert sa.plan_of(model) == sa.Plan.of("self()")
    sa.restore(model)
    assert model.config._attn_implementation == "sdpa"
    assert run(model, **batch((150,))).shape == (1, 150, 32)


def test_precision_modes_gradients_and_random_state_stay():
    model = small("modernbert").bfloat16()
    assert sa.lengthen(model, to=100).dtype == torch.bfloat16
    model = small("bert").half()
    model.embeddings.requires_grad_(False)
    model.train()
    model.encoder.layer[1].eval()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    sa.lengthen(model, to=100)
    assert torch.equal(torch.rand(1), expected)
    assert (table(model).dtype, table(model).requires_grad) == (torch.half, False)
    assert not any(p.requires_grad for p in model.embeddings.parameters())
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert (model.training, model.encoder.layer[1].training) == (True, False)


def test_new_positions_learn():
    model = sa.lengthen(small("bert", kind="ForSequenceClassification"), to=200)
    model(**batch((200, 30)), labels=torch.tensor([0, 1])).loss.backward()
    assert (model.bert.embeddings.position_embeddings.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("family", ["distilbert", "mobilebert", "mpnet", "eurobert"])
def test_saved_and_read_back(family, tmp_path):
    model = sa.lengthen(small(family), to=200)
    model.save_pretrained(tmp_path)
    again, columns = sa.load(tmp_path), batch((200, 77))
    assert again.config.max_position_embeddings == model.config.max_position_embeddings
    assert torch.equal(run(again, **columns), run(model, **columns))
    sa.restore(model)
    model.save_pretrained(tmp_path / "dense")
    plain = type(model).from_pretrained(tmp_path / "dense")
    assert torch.equal(run(plain, **columns), run(model, **columns))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "modernbert"])
def test_from_pretrained_alone(family, tmp_path):
    model = sa.lengthen(small(family, kind="ForMaskedLM"), to=200)
    model.save_pretrained(tmp_path)
    plain, columns = type(model).from_pretrained(tmp_path), batch((200, 77))
    assert torch.equal(run(plain, **columns), run(model, **columns))
    sa.lengthen(plain, to=300)  # a plan that from_pretrained put on
    assert run(plain, **batch((300,))).shape == (1, 300, 99)


def test_what_it_tells():
    tokenizer = transformers.BertTokenizer({"[UNK]": 0, "a": 1}, model_max_length=50)
    done = lengthened(small("bert"), tokenizer, to=1200)
    assert str(done) == (
        "BertModel: positions 66 -> 1,200\n"
        "learned positions: the new ones are copies, untrained; fine-tune on long texts\n"
        "copied over and over: embeddings.position_embeddings.weight\n"
        "computed for the new limit: embeddings.position_ids, embeddings.token_type_ids\n"
        "tokenizer: 50 -> 1,200 tokens\n"
        "plan: layers :: neighbor(radius=64) | global(cls)\n"
        "checked: without a plan, bit-equal outputs at 66 tokens\n"
        "checked: a text of 1,200 tokens runs under the plan"
    )
    assert tokenizer.model_max_length == 1200
    tokenizer.model_max_length = 50
    done = lengthened(small("bert"), tokenizer, to=60, plan=None)
    assert str(done) == (
        "BertModel: positions 66, enough\n"
        "positions: no new ones needed\n"
        "tokenizer: 50 -> 60 tokens\n"
        "plan: none\n"
        "checked: a text of 60 tokens runs"
    )
    assert done.model.config.max_position_embeddings == OLD
