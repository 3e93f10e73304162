"""Calibrated degrees: the importance that is measured, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sparseattn as sa
from sparseattn.counting import count_plan
from sparseattn.degrees.calibrate import (
    attention_importance,
    calibrate_rows,
    distributions,
    output_importance,
)
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.discretize import regular
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import DataError, PlanError, UnsupportedModelError
from tests.degrees.small import classifier, collate, rows
from tests.models.families import build


def sharp(model, factor=6.0):
    """A model with attention that is not almost uniform."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in (".query.", ".key.", ".attn.q.", ".attn.k.")):
            parameter.data.mul_(factor)
    return model


@pytest.mark.parametrize(
    "candidates",
    [
        Candidates((0, 1, 3, 30)),
        Candidates((0, 2), globals=()),
        Candidates((0, 0.1, 0.4, 1.0), elastic=True),
    ],
)
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_kept_attention_is_that_of_the_eager_attention(candidates, family):
    model, data = sharp(build(family)), rows(7)
    found = attention_importance(Texts(model, data, collate, 7), candidates, [0, 2])
    model.set_attn_implementation("eager")
    expected, queries = torch.zeros(2, 4, len(candidates), dtype=torch.float64), 0
    for row in data:
        n = len(row["input_ids"])
        with torch.no_grad():
            weights = model(torch.tensor([row["input_ids"]]), output_attentions=True).attentions
        first = 0 if candidates.globals == () else 1
        radii = candidates.radii(sa.TokenBatch.of_lengths(n))[0].tolist()
        queries += n - first
        for index, layer in enumerate((0, 2)):
            for q in range(first, n):
                for entry, radius in enumerate(radii):
                    kept = [k for k in range(n) if abs(q - k) <= radius or k < first]
                    expected[index, :, entry] += weights[layer][0, :, q, kept].sum(-1).double()
    torch.testing.assert_close(found, expected / queries, atol=1e-5, rtol=1e-5)


def contexts(model, row):
    """Each layer's attention, values and context of a text, from the stock model's own modules."""
    values, context = [], []
    hooks = []
    for layer in model.bert.encoder.layer:
        take = layer.attention.self.value.register_forward_hook
        hooks.append(take(lambda _m, _a, out: values.append(out.view(-1, 4, 8).transpose(0, 1))))
        take = layer.attention.output.dense.register_forward_pre_hook
        hooks.append(take(lambda _m, args: context.append(args[0])))
    output = model(torch.tensor([row["input_ids"]]), output_attentions=True)
    for hook in hooks:
        hook.remove()
    return output.logits[0], output.attentions, values, context


def test_kept_output_is_the_change_that_contexts_bring_about():
    """Against gradients with respect to the contexts themselves, and contexts query by query."""
    model, data, candidates = sharp(classifier()), rows(5), Candidates((0, 1, 3, 30))
    found = output_importance(Texts(model, data, collate, 5), candidates, [0, 2])
    model.set_attn_implementation("eager")
    draws = torch.Generator().manual_seed(0)
    directions = [torch.randn(5, 2, generator=draws) for _ in range(4)]
    changed = torch.zeros(2, 4, len(candidates), dtype=torch.float64)
    for number, row in enumerate(data):
        n = len(row["input_ids"])
        logits, attentions, values, context = contexts(model, row)
        for direction in directions:
            gradients = torch.autograd.grad(
                logits @ direction[number], [context[0], context[2]], retain_graph=True
            )
            for index, layer in enumerate((0, 2)):
                gradient = gradients[index][0].view(n, 4, 8)
                for head in range(4):
                    for entry, radius in enumerate(candidates.entries):
                        change = 0.0
                        for q in range(1, n):
                            keys = [k for k in range(n) if abs(q - k) <= radius or k == 0]
                            weights = attentions[layer][0, head, q]
                            some = weights[keys] / weights[keys].sum()
                            moved = some @ values[layer][head, keys] - weights @ values[layer][head]
                            change += (gradient[q, head] @ moved).item()
                        changed[index, head, entry] += change**2
    expected = (1 - changed / changed[..., 0].mean()).cummax(dim=-1).values
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_what_no_output_is_read_from_is_unimportant():
    """Only CLS is read, and it is global: in the last layer, other queries do not matter."""
    kept = output_importance(
        Texts(classifier(), rows(9), collate, 9), Candidates((0, 2, 30)), [0, 1, 2]
    )
    assert (kept[-1] > 1 - 1e-6).all()
    assert (kept[:-1, :, 0] < 1 - 1e-6).any()


def test_hidden_states_are_read_where_there_are_no_logits():
    model = classifier().bert
    kept = output_importance(Texts(model, rows(9), collate, 9), Candidates((0, 2, 30)), [0, 1, 2])
    assert (kept[-1, :, 0] < 1 - 1e-6).all()
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attention_kept_does_not_depend_on_batches(monkeypatch):
    texts, candidates = Texts(sharp(classifier()), rows(6), collate, 6), Candidates((0, 1, 30))
    together = attention_importance(texts, candidates, [0, 1])
    monkeypatch.setattr("sparseattn.degrees.texts._ROWS", 1)
    torch.testing.assert_close(together, attention_importance(texts, candidates, [0, 1]))


def test_long_texts_come_in_small_batches(monkeypatch):
    monkeypatch.setattr("sparseattn.degrees.texts._PAIRS", 1000)
    data = rows(9)
    sizes = [batch["input_ids"].shape for batch in Texts(classifier(), data, collate, 9).batches()]
    assert sum(count for count, _ in sizes) == 9
    assert all(count == 1 or count * length**2 <= 1000 for count, length in sizes)
    assert len(sizes) > 1


@pytest.mark.parametrize("options", [{}, {"form": "irregular"}, {"granularity": "layer"}])
def test_plans_meet_their_sparsity(options):
    candidates = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)
    settings = Settings.of({"candidates": candidates, **options})
    plan = calibrate_rows(sharp(classifier()), rows(64), collate, 0.7, settings).plan
    report = count_plan(
        plan, sa.TokenBatch.of_lengths(*[len(r["input_ids"]) for r in rows(64)]), [4] * 3
    )
    assert abs(report.sparsity - 0.7) < 0.015


def test_heads_that_look_near_get_the_smaller_radii():
    """A head that attends to its own place needs no window; one that looks far does."""
    values = torch.tensor([[[0.99, 1.0, 1.0], [0.1, 0.2, 1.0]]], dtype=torch.float64)
    texts = Texts(classifier(), rows(32), collate, 32)
    candidates = Candidates((0, 2, 24))
    costs = Settings.of({"candidates": candidates.entries, "dense_layers": "1:"}).costs(texts)
    costs = replace(
        costs, allowed=costs.allowed[:1], full=costs.full[:1], heads=(2,), windows=(None,), dense=()
    )
    sparsity = (costs.highest + costs.lowest) / 2
    groups = regular(values, costs, sparsity).windows.resolve([2])[0]
    assert [str(p) for _, p in groups] == ["neighbor(radius=0)", "neighbor(radius=24)"]
    chances = distributions(values, costs, sparsity).exp()
    assert float(costs.density(chances)) == pytest.approx(1 - sparsity, abs=2e-3)
    assert chances[0, 0, 0] > 0.5
    assert chances[0, 1, 2] > 0.5


class Words:
    """A tokenizer, as far as calibration asks for one."""

    model_max_length = 12
    all_special_ids = (1, 2)
    pad_token_id, cls_token_id, bos_token_id = 0, 1, 1
    sep_token_id = eos_token_id = 2

    def __call__(self, text, truncation=False, max_length=None):
        ids = [1, *(5 + len(word) for word in text.split()), 2][:max_length]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    def pad(self, features, **kwargs):
        return collate(features)


def test_texts_may_be_strings():
    texts = ["one two three four five six", "some words more", "a b c d e f g h i j k l m n o"] * 3
    plan = sa.calibrate(classifier(), texts, 0.5, tokenizer=Words())
    assert isinstance(plan, sa.Plan)
    found = count_plan(plan, sa.TokenBatch.of_lengths(8, 5, 12), [4] * 3).sparsity
    assert abs(found - 0.5) < 0.03


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is none"),
        (["a", " "], "text 1 is not a text or a tokenised row: ' '"),
        ([3], "text 0 is not a text or"),
    ],
)
def test_wrong_texts(texts, message):
    with pytest.raises(DataError, match=message):
        sa.calibrate(classifier(), texts, 0.5, tokenizer=Words())


def test_what_cannot_be_calibrated():
    with pytest.raises(PlanError, match=r"sparsity 0.99 cannot be reached"):
        calibrate_rows(classifier(), rows(8), collate, 0.99, Settings())
    deberta = build("deberta", "ForSequenceClassification")
    with pytest.raises(UnsupportedModelError, match="'deberta' takes only a boolean mask"):
        calibrate_rows(deberta, rows(8), collate, 0.6, Settings())
