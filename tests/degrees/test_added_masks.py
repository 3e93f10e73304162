"""Learning on families that compute their own attention, which is replaced."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

import sparseattn as sa
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.distribution import Degrees
from sparseattn.degrees.learn import Learner, learn_degrees
from sparseattn.degrees.method import parse_method
from sparseattn.degrees.methods.learned import LearnedMethod
from sparseattn.degrees.observe import observe
from sparseattn.degrees.ranking import parse_rankings
from sparseattn.degrees.search import searching
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.describe import measure
from tests.degrees.small import arguments, collate, rows
from tests.models.families import MASKED, OWN, batch, build

ADDED = list(OWN)
#: MPNet has no gradient checkpointing.
CHECKPOINTED = ADDED[1:]

RADII = (0, 1, 4, 9)
CANDIDATES = Candidates(parse_rankings("neighbor(degrees=[0, 1, 4, 9])"))


@contextmanager
def added_to_scores(monkeypatch, terms):
    """Lets the stock modules add a term each to their scores, where they take the softmax."""
    calls = iter(terms)
    softmax = nn.functional.softmax

    def patched(scores, dim):
        term = next(calls)
        return softmax(scores if term is None else scores + term, dim=dim)

    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "softmax", patched)
        yield
    assert next(calls, "none is left") == "none is left"


def looped(theta, temperature, lengths):
    """The soft mask by its definition, pair by pair: windows, and the first token global or not."""
    longest = max(lengths)
    window, without = ((part / temperature).softmax(-1) for part in theta.split([4, 2], -1))
    rows_of_batch = []
    for length in lengths:
        row = []
        for q in range(longest):
            for k in range(longest):
                missed = torch.zeros_like(window[:, 0])
                if q != k and q < length:  # nobody reads a padding query
                    smaller = [i for i, radius in enumerate(RADII) if radius < abs(q - k)]
                    missed = window[:, smaller].sum(-1) if len(smaller) < 4 else missed + 1
                    missed = missed * without[:, 0] if 0 in (q, k) else missed
                    missed = missed if k < length else torch.ones_like(missed)
                row.append((1 - missed).log())
        rows_of_batch.append(torch.stack(row, -1).view(-1, longest, longest))
    return torch.stack(rows_of_batch)


def degrees_of(model, dense=()):
    heads = [4] * 3
    degrees = Degrees(CANDIDATES, heads, [None] * 3, dense).to(model.dtype)
    torch.manual_seed(1)
    with torch.no_grad():
        degrees.theta.normal_()
    degrees.temperature = 0.7
    return degrees


def read(output, inputs):
    """A number that every real token has a part in."""
    hidden = output.last_hidden_state[inputs["attention_mask"].bool()]
    return (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden).to(hidden)).sum()


def assert_equal(found, expected, tolerance=1e-5):
    """Equal up to a share of the largest number."""
    largest = expected.abs().max()
    assert largest > 1e-6
    torch.testing.assert_close(found / largest, expected / largest, atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", ADDED)
def test_the_soft_mask_is_added_to_the_scores(family, monkeypatch):
    """Against the stock model, whose scores get the sums of a double loop before the softmax."""
    lengths = (14, 6)
    model, inputs = build(family).double(), batch(lengths)
    degrees = degrees_of(model, dense=[1])
    theta = degrees.theta.detach().clone().requires_grad_()
    terms = [looped(t, degrees.temperature, lengths) for t in theta]
    with added_to_scores(monkeypatch, [terms[0], None, terms[1]]):
        expected = model(**inputs)
    read(expected, inputs).backward()
    with searching(model, degrees):
        found = model(**inputs)
        read(found, inputs).backward()
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(
        found.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-5, rtol=0
    )
    assert_equal(degrees.theta.grad, theta.grad)


def gradient(model, inputs, *parts, autocast=False, checkpointed=False):
    """The gradient of the degrees, from some rows of a batch after another."""
    degrees = degrees_of(model)
    if checkpointed:
        model.train().activation_checkpointing_enable({"use_reentrant": False})
    with searching(model, degrees):
        for part in parts or (slice(None),):
            some = {name: value[part] for name, value in inputs.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = read(model(**some), some)
            loss.backward()
    return degrees.theta.grad


@pytest.mark.parametrize("family", CHECKPOINTED)
def test_gradients_of_checkpointed_layers(family):
    inputs = batch((14, 6))
    stored = gradient(build(family), inputs)
    again = gradient(build(family), inputs, checkpointed=True)
    assert_equal(again, stored, 1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("family", ADDED)
def test_gradients_in_bfloat16(family, checkpointed):
    if checkpointed and family not in CHECKPOINTED:
        pytest.skip("it has no gradient checkpointing")
    inputs = batch((14, 6))
    exact = gradient(build(family), inputs)
    found = gradient(build(family), inputs, autocast=True, checkpointed=checkpointed)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.98


def sharp(family, kind="Model"):
    """A model with attention that is not almost uniform."""
    model = build(family, kind, **({"num_labels": 2} if "For" in kind else {}))
    for name, parameter in model.named_parameters():
        if name.rpartition(".weight")[0].endswith((".query", ".key", "attn.q", "attn.k")):
            parameter.data.mul_(6)
    return model


@pytest.mark.parametrize("family", [*ADDED, *MASKED])
def test_weights_are_those_that_the_model_returns(family):
    model, data = sharp(family), rows(5)
    inputs = {name: value for name, value in collate(data).items() if name != "labels"}
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True).attentions
    (seen,) = observe(Texts(model, data, collate), sa.Plan.of("full()"), [0, 2])
    real = inputs["attention_mask"].bool()
    for layer, weights in zip((0, 2), seen.weights, strict=True):
        assert weights[real[:, None].expand(-1, 4, -1)].std() > 0.01
        of_tokens = [x.transpose(1, 2)[real] for x in (weights, expected[layer])]
        torch.testing.assert_close(*of_tokens, atol=1e-5, rtol=0)
    assert sa.models.state.attached_state(model) is None


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mpnet", {"gradient_accumulation_steps": 2, "bf16": True}),
        ("roformer", {"activation_checkpointing": True, "bf16": True}),
    ],
)
def test_degrees_are_learned(family, changes, tmp_path):
    """The search ends at its budget, with heads that differ, and the plan keeps it."""
    model = build(family, "ForSequenceClassification", num_labels=2)
    trainer = {"data_collator": collate, "eval_dataset": rows(64, seed=9)}
    made = arguments(tmp_path, 60, **changes)
    options = {"over": "neighbor,random", "search_steps": 0.8, "temperature_end": 0.2}
    learned = learn_degrees(model, rows(), 0.7, arguments=made, trainer=trainer, **options)
    assert abs(learned.history[-1]["density"] - learned.history[-1]["target"]) < 0.05
    assert abs(learned.measured_sparsity - 0.7) < 0.025
    assert learned.chances["neighbor"].std(dim=1).max() > 1e-3, "only the task tells heads apart"
    report = sa.describe(model, collate(rows(64, seed=9)))
    assert report.sparsity == pytest.approx(learned.measured_sparsity)
    assert {layer.backend for layer in report.layers} == {"masked"}


class Untouched:
    """Texts that nobody may look at."""

    def __len__(self):
        raise AssertionError

    def __getitem__(self, _):
        raise AssertionError


@pytest.mark.parametrize("family", MASKED)
@pytest.mark.parametrize(
    "start",
    [
        lambda model, texts: learn_degrees(model, texts, 0.5),
        lambda model, texts: Learner(model, texts, arguments("x"), {}, Settings()),
        lambda model, _: LearnedMethod(0.5).check(Texts(model, rows(3), None)),
    ],
)
def test_a_boolean_mask_is_refused_at_once(family, start, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = build(family, "ForSequenceClassification")
    with pytest.raises(UnsupportedModelError, match=r"only a boolean mask.*uniform") as told:
        start(model, Untouched())
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_what_the_refusal_names_works():
    model, data = build("deberta"), rows(64)
    plan = parse_method("uniform(sparsity=0.8)").plan(model, data, collate)
    assert measure(sa.sparsify(model, plan), [collate(data)]).sparsity > 0.75
    assert sa.plan_of(sa.sparsify(model, "neighbor(radius=4)")) is not None


def test_no_mask_of_true_and_false_drops_a_bias():
    """Whatever the type in the config says."""
    model = build("deberta-v2")
    model.config.model_type = "mine"
    with (
        pytest.raises(UnsupportedModelError, match="DisentangledSelfAttention takes only"),
        searching(model, degrees_of(model)),
    ):
        model(**batch())
