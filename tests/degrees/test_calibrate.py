"""Calibrated degrees: the importance that is measured, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sparseattn as sa
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.calibrate import attention_by_cell, calibrate_rows
from sparseattn.degrees.discretize import discretize
from sparseattn.degrees.result import kind_lines
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import (
    AnnotationError,
    DataError,
    PlanError,
    SparseAttnError,
)
from sparseattn.plan import Plan
from tests.degrees.small import classifier, collate, rows
from tests.models.families import build


def sharp(model, factor=6.0):
    """A model with attention that is not almost uniform."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in (".query.", ".key.", ".attn.q.", ".attn.k.")):
            parameter.data.mul_(factor)
    return model


def costs_of(over, texts, **options):
    return Settings(over=over, **options).costs(texts)


OVER = {
    "one": "neighbor(degrees=[0, 1, 3, 30])",
    "elastic": "elastic(degrees=[0, 0.1, 0.4, 1.0])",
    "three": "neighbor(degrees=[0, 2]), similarity(degrees=[0, 1, 4]), random(degrees=[0, 3])",
}


@pytest.mark.parametrize(
    ("over", "family", "options"),
    [
        (OVER["one"], "bert", {"globals": ()}),
        (OVER["elastic"], "mpnet", {"off": True}),
        (OVER["three"], "bert", {"off": False}),
    ],
    ids=OVER,
)
def test_attention_by_cell_is_that_of_the_eager_attention(over, family, options):
    """Pair by pair, and each pair under the plan of every combination."""
    model, data = sharp(build(family)), rows(5)
    texts = Texts(model, data, collate)
    costs = costs_of(over, texts, dense_layers="0", **options)
    found = attention_by_cell(texts, costs)
    assert found.shape == (2, 4, len(costs.numbers))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4).double(), atol=1e-5, rtol=0)
    model.set_attn_implementation("eager")
    candidates = costs.candidates
    kept, queries = torch.zeros(2, 4, len(candidates.combinations), dtype=torch.float64), 0
    for row in data:
        one = Texts(model, [row], collate)
        (tokens,) = one.tokens(Plan.of(candidates.needed))
        n, first = tokens.length, 1 if candidates.globals else 0
        with torch.no_grad():
            weights = model(torch.tensor([row["input_ids"]]), output_attentions=True).attentions
        queries += n - first
        for number, combination in enumerate(candidates.combinations.tolist()):
            plan = Plan.of(candidates.pattern(combination)).compile(tokens, [4] * 3)
            for index, layer in enumerate((1, 2)):
                mask = plan.layers[layer].dense[0, 0]
                for q in range(first, n):
                    for k in range(n):
                        if mask[q, k]:
                            kept[index, :, number] += weights[layer][0, :, q, k].double()
    torch.testing.assert_close(found @ costs.keeps.T, kept / queries, atol=1e-5, rtol=1e-5)


def test_attention_kept_does_not_depend_on_batches(monkeypatch):
    texts = Texts(sharp(classifier()), rows(6), collate)
    costs = costs_of(OVER["three"], texts)
    together = attention_by_cell(texts, costs)
    monkeypatch.setattr("sparseattn.degrees.texts._ROWS", 1)
    alone = costs_of(OVER["three"], texts)
    assert torch.equal(alone.pairs, costs.pairs)
    torch.testing.assert_close(together, attention_by_cell(texts, alone))
    assert all(parameter.requires_grad for parameter in texts.model.parameters())


def test_long_texts_come_in_small_batches(monkeypatch):
    monkeypatch.setattr("sparseattn.degrees.texts._PAIRS", 1000)
    data = rows(9)
    sizes = [batch["input_ids"].shape for batch in Texts(classifier(), data, collate, 9).batches()]
    assert sum(count for count, _ in sizes) == 9
    assert all(count == 1 or count * length**2 <= 1000 for count, length in sizes)
    assert len(sizes) > 1


@pytest.mark.parametrize(
    "options", [{}, {"over": OVER["three"]}, {"granularity": "layer"}, {"over": "elastic,random"}]
)
def test_plans_meet_their_sparsity(options):
    data = rows(64)
    settings = Settings(**{"over": "neighbor,similarity", **options})
    found = calibrate_rows(sharp(classifier()), data, collate, 0.7, settings)
    tokens = Texts(classifier(), data, collate).tokens(found.plan)
    sparsity = MeasuredSparsity.of(found.plan, tokens, [4] * 3).sparsity
    # A tiny model has 12 heads, or 3 layers.
    assert 0 <= sparsity - 0.7 < (0.05 if "granularity" in options else 0.015)
    assert "global" not in found.shares
    assert str(found.plan).count("global(cls)") == len(found.plan.entries)


def test_heads_get_the_kind_that_they_attend_to():
    """A head that attends to its own place needs nothing; one gets a window, one far keys."""
    texts = Texts(classifier(), rows(32), collate)
    over = "neighbor(degrees=[0, 2]), similarity(degrees=[0, 2])"
    costs = costs_of(over, texts, off=False, dense_layers="1:")
    costs = replace(costs, heads=(3, 4, 4))
    names = costs.levels.tolist()
    values = torch.zeros(1, 3, len(names), dtype=torch.float64)
    values[0, 0, names.index([0, 0])] = 1.0
    values[0, 1, names.index([1, 2])] = 0.9
    values[0, 2, names.index([2, 1])] = 0.9
    for plan_of_all in (costs.lowest, (costs.highest + costs.lowest) / 2):
        found = discretize(values, costs, plan_of_all)
        assert found.chosen[0].tolist() == [[0, 0], [1, 0], [0, 1]]


class Words:
    """A tokenizer, as far as calibration asks for one."""

    model_max_length = 12
    all_special_ids = (1, 2)
    pad_token_id, cls_token_id, bos_token_id = 0, 1, 1
    sep_token_id = eos_token_id = 2
    pad_token_type_id, padding_side = 0, "right"

    def __call__(self, text, truncation=False, max_length=None):
        ids = [1, *(5 + len(word) for word in text.split()), 2][:max_length]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}


def test_texts_may_be_strings():
    texts = ["one two three four five six", "some words more", "a b c d e f g h i j k l m n o"] * 3
    plan = sa.calibrate(classifier(), texts, 0.5, tokenizer=Words(), over="neighbor")
    assert isinstance(plan, sa.Plan)
    found = MeasuredSparsity.of(plan, [sa.TokenBatch.of_lengths(8, 5, 12)], [4] * 3).sparsity
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
    settings = Settings(over="neighbor")
    with pytest.raises(PlanError, match=r"0.99 cannot be reached.*global tokens keep their rows"):
        calibrate_rows(classifier(), rows(8), collate, 0.99, settings)
    with pytest.raises(AnnotationError, match=r"dependency\(hops=3\) needs 'words'.*Annotator"):
        calibrate_rows(classifier(), rows(8), collate, 0.6, Settings(over="dependency"))
    with pytest.raises(AnnotationError, match=r"needs 'special'.*pass tokenizer="):
        calibrate_rows(
            classifier(),
            [{"input_ids": [5, 6], "attention_mask": [1, 1]}],
            collate,
            0.6,
            Settings(),
        )
    with pytest.raises(SparseAttnError, match="unknown option 'importance'"):
        sa.calibrate(classifier(), ["a b c"], 0.6, tokenizer=Words(), importance="output")
    with pytest.raises(PlanError, match="unknown option 'warmup'; choose from: over, granularity"):
        sa.calibrate(classifier(), ["a b c"], 0.6, tokenizer=Words(), warmup=0.2)


def test_a_head_with_the_global_tokens_alone_is_not_called_off():
    found = calibrate_rows(sharp(classifier()), rows(32), collate, 0.8, Settings(over="neighbor"))
    lines = kind_lines(found)
    alone = int((~(found.chosen > 0).any(dim=-1)).sum())
    assert lines[-1].split()[:2] == ["global", "alone"]
    assert lines[-1].endswith(f"{alone} of 12")
    assert "self()" not in str(found.plan)
