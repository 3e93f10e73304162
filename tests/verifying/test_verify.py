"""Whether what runs keeps to its plan: models, functions and files that do and do not."""

import pytest
import torch
from transformers import BertConfig, BertModel, EsmTokenizer

import sparseattn as sa
from sparseattn.verifying.vectors import interaction
from tests.models.families import FAMILIES, SMALL, build, sentence_transformer

PLAN = "neighbor(radius=2)"
#: Distances of 7 and more are out of reach of three layers.
LAYERED = {0: "neighbor(2)", 1: {"0": "dilated(2, 3)", "1:": "global(cls)"}, 2: "neighbor(1)"}


def texts(*lengths):
    drawn = torch.Generator().manual_seed(3)
    return [torch.randint(5, 90, (length,), generator=drawn).tolist() for length in lengths]


TEXTS = texts(40, 47)


def strong():
    """A model whose attention counts for more than that of a new one."""
    torch.manual_seed(0)
    return BertModel(BertConfig(**SMALL, initializer_range=0.2)).eval()


def function(model, pooling):
    """A model as a function from lists of ids to vectors."""

    def run(ids):
        with torch.no_grad():
            states = model(input_ids=torch.tensor(ids)).last_hidden_state
        pooled = {
            "tokens": states,
            "cls": states[:, 0],
            "last": states[:, -1].tolist(),
            "mean": states.mean(dim=1).numpy(),
            "unit": torch.nn.functional.normalize(states.mean(dim=1), dim=1).tolist(),
        }
        return pooled[pooling]

    return run


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    model = sa.sparsify(build(family), LAYERED)
    kept = sa.verify(model, None, TEXTS[:1])
    assert kept, str(kept)
    assert [check.where for check in kept.checks][:3] == ["layer 0", "layer 1", "layer 2"]
    assert sa.verify(sa.restore(model), LAYERED, TEXTS[:1]).verdict == "ignored"


@pytest.mark.parametrize(
    ("runs", "verdict", "wrong"),
    [
        (PLAN, "kept", []),
        ("full()", "ignored", [0, 1, 2]),
        ({":": PLAN, "1": "neighbor(3)"}, "ignored", [1]),
        ({":": PLAN, "2": {":3": PLAN, "3": "global(cls)"}}, "ignored", [2]),
        ({":": PLAN, "1": "neighbor(1)"}, "narrower than the plan", [1]),
        ({":": PLAN, "0": "dilated(1, 2)"}, "narrower than the plan", [0]),
    ],
)
def test_layers_of_a_torch_model(runs, verdict, wrong):
    found = sa.verify(sa.sparsify(build("bert"), runs), PLAN, TEXTS)
    assert found.verdict == verdict
    assert bool(found) == (verdict == "kept")
    bad = [i for i in range(3) if found.checks[i].verdict != "kept"]
    assert bad == wrong


def test_global_tokens_hide_nothing_from_a_look_at_each_layer():
    plan = f"{PLAN} | global(cls)"
    assert sa.verify(sa.sparsify(build("bert"), plan), None, TEXTS)
    wider = sa.sparsify(build("bert"), "neighbor(3) | global(cls)")
    assert sa.verify(wider, plan, TEXTS).verdict == "ignored"
    assert sa.verify(wider, PLAN, TEXTS).verdict == "ignored"


def test_more_changes_than_fit_into_two_batches():
    found = sa.verify(sa.sparsify(build("bert"), PLAN), None, texts(100), changes=70)
    assert found, str(found)
    assert found.changed == 70


def test_the_model_is_left_as_it_was():
    model = sa.sparsify(build("bert"), PLAN).train()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sa.verify(model, None, TEXTS)
    assert model.training
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_modernbert_and_a_mask_that_is_lost(implementation, monkeypatch):
    model = build("modernbert", attn_implementation=implementation)
    own = sa.verify(model, None, TEXTS)
    assert own, str(own)
    assert [check.outside > 0 for check in own.checks[:3]] == [False, True, True]
    name = "transformers.models.modernbert.modeling_modernbert.create_bidirectional_{}mask"
    monkeypatch.setattr(name.format("sliding_window_"), lambda **_: None)
    assert sa.verify(model, None, TEXTS).verdict == "ignored"


@pytest.mark.parametrize("pooling", ["tokens", "last", "unit"])
def test_functions(pooling):
    """From outside, whatever they pool."""
    model = strong()
    for runs, verdict in [(PLAN, "kept"), ("full()", "ignored"), ("neighbor(6)", "ignored")]:
        run = function(sa.sparsify(model, runs), pooling)
        assert sa.verify(run, PLAN, TEXTS, model=build("bert")).verdict == verdict, runs
    everywhere = f"{PLAN} | global(cls)"
    found = sa.verify(
        function(sa.sparsify(model, everywhere), pooling), everywhere, TEXTS, model=model
    )
    assert found.verdict == "not to be proven from outside"
    assert not found
    assert "what would prove more" in str(found)
    assert "global tokens carry everything" in str(found)


@pytest.mark.parametrize("pooling", ["tokens", "cls", "mean"])
def test_narrow_functions(pooling):
    narrow = sa.sparsify(strong(), "neighbor(1)")
    found = sa.verify(function(narrow, pooling), "neighbor(4)", texts(80, 71), model=narrow)
    assert found.verdict == "narrower than the plan"


@pytest.mark.parametrize("plan", ["neighbor(30)", "full()"])
def test_much_narrower(plan, recwarn):
    """Where most tokens within reach have no effect at all."""
    model = sa.sparsify(build("bert", num_hidden_layers=2), "neighbor(3)")
    found = sa.verify(model, plan, texts(80, 71))
    assert {each.verdict for each in found.checks} == {"narrower than the plan"}, str(found)
    run = function(model, "tokens")
    assert sa.verify(run, plan, texts(80, 71), model=model).verdict == "narrower than the plan"
    assert not [each for each in recwarn if each.category is RuntimeWarning]


@pytest.mark.parametrize("runs", ["neighbor(3)", "full()"])
@pytest.mark.parametrize("pooling", ["mean", "unit"])
def test_a_text_that_is_cut(runs, pooling):
    model = sa.sparsify(build("bert", num_hidden_layers=2), runs)
    run = function(model, pooling)
    with pytest.raises(
        sa.errors.DataError, match="a text of 60 tokens seems to be cut after about"
    ):
        sa.verify(
            lambda ids: run([each[:20] for each in ids]), "neighbor(3)", texts(60), model=model
        )
    with pytest.raises(sa.errors.DataError, match="60 tokens seems to be cut after about 20:"):
        sa.verify(lambda ids: run([x[:20] for x in ids]), "neighbor(12)", texts(60), model=model)
    assert sa.verify(run, "neighbor(3)", texts(60), model=model).verdict in ("kept", "ignored")


@pytest.mark.parametrize("length", [40, 90])
def test_a_first_token_with_a_wider_window_is_no_cut_text(length):
    run = function(sa.sparsify(build("bert", num_hidden_layers=2), "neighbor(3)"), "cls")
    model = build("bert", num_hidden_layers=2)
    assert sa.verify(run, "neighbor(1)", texts(length), model=model).verdict == "ignored"


def test_weak_joint_effects_of_a_new_model(tmp_path):
    """Two of twelve happen to be below the rounding, which proves nothing."""
    model = sa.sparsify(sentence_transformer(tmp_path, "bert", num_hidden_layers=2), "neighbor(3)")
    words = ["the fox sat on the mat the fox sat on the mat on the mat the fox sat on " * 2] * 2
    assert sa.verify(model, None, words)
    found = sa.verify(model.encode, "neighbor(3)", words)
    assert found, str(found)


def test_a_token_more_shows_in_the_outputs_of_tokens():
    run = function(sa.sparsify(strong(), "neighbor(3)"), "tokens")
    found = sa.verify(run, PLAN, TEXTS, model=build("bert"))
    assert found.verdict == "ignored"
    assert found.checks[0].outside_distance > 6


def test_joint_changes_that_add_up():
    """Against vectors whose sum is known, as they are and divided by their norms."""
    torch.manual_seed(0)
    base, x, y, more = torch.randn(4, 20).double().numpy()
    for norm in (lambda v: v, lambda v: v / (v @ v) ** 0.5):
        added = [norm(v) for v in (base, base + x, base + y, base + x + y)]
        assert interaction(*added) < 1e-12
        assert interaction(*added[:3], norm(base + x + y + 1e-3 * more)) > 1e-5


@pytest.mark.filterwarnings("ignore")
def test_dynamic_int8_is_told_from_a_window_that_is_wider():
    """Its scales are those of whole tensors, so every token changes a little with every other."""
    from torch.ao.quantization import quantize_dynamic

    kept = {}
    for radius in (2, 3):
        model = sa.sparsify(strong(), f"neighbor({radius})")
        low = quantize_dynamic(model, {torch.nn.Linear})
        kept[radius] = sa.verify(low, PLAN, TEXTS)
    assert kept[2], str(kept[2])
    assert kept[3].verdict == "ignored"


def test_texts_may_be_a_tensor():
    found = sa.verify(sa.sparsify(build("bert"), PLAN), None, torch.tensor(TEXTS[:1]))
    assert found, str(found)


def test_a_tokenizer_without_offsets_is_refused_for_strings_alone(tmp_path):
    (tmp_path / "vocab.txt").write_text("<cls>\n<pad>\n<eos>\n<unk>\nL\nA\nG\n<mask>\n")
    slow = EsmTokenizer(str(tmp_path / "vocab.txt"))
    model = sa.sparsify(build("bert"), PLAN)
    with pytest.raises(sa.errors.DataError, match=r"^EsmTokenizer knows no offsets: use a fast"):
        sa.verify(model, None, ["LAG" * 20], tokenizer=slow)
    assert sa.verify(model, None, TEXTS[:1], tokenizer=slow, changes=4)


def test_texts_are_drawn_where_none_are_given():
    found = sa.verify(sa.sparsify(build("bert"), PLAN))
    assert found
    assert found.texts == 3


@pytest.mark.parametrize(
    ("what", "plan", "given", "message"),
    [
        (build("bert"), None, TEXTS, "there is no plan to verify"),
        (build("bert"), PLAN, texts(3), "give texts of at least 4 tokens"),
        (build("bert"), PLAN, texts(170), "170 tokens is more than the 160"),
        (build("bert"), PLAN, [[5, 6, 70000] * 9], "has no token 70,000"),
        (build("bert"), PLAN, [[5, -6, 7] * 9], "has no token -6"),
        ("localhost:8080", PLAN, TEXTS, "is it http://localhost:8080"),
        (build("bert"), PLAN, ["words"], "give tokenizer=, model= as a name"),
        (build("bert"), PLAN, [[0.5]], "a text is a string or a list of token ids"),
        (build("bert"), PLAN, "words", "texts are a list"),
        (build("bert"), {7: PLAN}, TEXTS, "layer"),
        (len, PLAN, TEXTS, "nothing says how many layers"),
        ("ftp://here", PLAN, TEXTS, "give an http or https URL"),
        ("nowhere.onnx", PLAN, TEXTS, "there is no file nowhere.onnx"),
        (5, PLAN, TEXTS, "what runs is"),
    ],
)
def test_bad_input_is_one_line(what, plan, given, message):
    model = build("bert") if what in (5, "nowhere.onnx", "ftp://here") else None
    with pytest.raises(sa.errors.SparseAttnError, match=message) as raised:
        sa.verify(what, plan, given, model=model)
    assert "\n" not in str(raised.value)


def test_functions_that_give_something_else():
    model = build("bert")
    for answer, message in [
        (lambda ids: [[1.0]] * (len(ids) + 1), "something else than a vector for each text"),
        (lambda ids: ["no"] * len(ids), "a vector of finite numbers"),
        (lambda ids: torch.full((len(ids), 3), torch.nan), "a vector of finite numbers"),
        (lambda ids: torch.zeros(len(ids), 12, 3), "12 vectors for the 40 tokens"),
    ]:
        with pytest.raises(sa.errors.DataError, match=message):
            sa.verify(answer, PLAN, TEXTS, model=model)


@pytest.mark.parametrize("changes", [0, -1, "x", 1.5])
def test_changes_are_at_least_one(changes):
    with pytest.raises(sa.errors.DataError, match="changes is a whole number of tokens"):
        sa.verify(build("bert"), PLAN, TEXTS, changes=changes)


def test_a_folder_as_a_path(tmp_path):
    sa.sparsify(build("bert"), PLAN).save_pretrained(tmp_path)
    found = sa.verify(tmp_path, changes=4)
    assert found, str(found)
    assert f"{tmp_path} under neighbor(radius=2) (" in str(found)
