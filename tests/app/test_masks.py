"""What is drawn is what was executed, and the numbers beside it are those counted elsewhere."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import sparseattn as sa
from sparseattn.app import masks as view
from sparseattn.app.asked import Asked
from sparseattn.app.masks import EXECUTED, masks, reach
from sparseattn.app.reader import Reader, plan_from
from sparseattn.errors import DataError, PatternError, PlanError, UnsupportedModelError
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.rules import Band, Rule

TEXT, PAIR = "The quick brown fox jumps over the lazy dog.", "A fox is quick."
PLAN = "layer 1: neighbor(radius=1) | similarity(k=2) | global(cls); layer 2: dependency()"


def bits_of(picture) -> np.ndarray:
    size = picture["tile"]["size"]
    return np.frombuffer(b64decode(picture["mask"]), np.uint8).reshape(size, size)


def weights_of(picture, name: str) -> np.ndarray:
    size = picture["tile"]["size"]
    packed = np.frombuffer(b64decode(picture["attention"][name]), "<u2")
    return packed.reshape(size, size) / 65535


def eager(text: str, pair: str | None):
    """The stock model with its own attention, by transformers alone."""
    name = resolve(DEFAULT)
    model = AutoModel.from_pretrained(name, attn_implementation="eager").eval()
    batch = AutoTokenizer.from_pretrained(name)(text, pair, return_tensors="pt")
    with torch.no_grad():
        return model, batch, model(**batch, output_attentions=True).attentions


def test_the_mask_and_the_counts_are_those_of_describe(reader, kept) -> None:
    picture = masks(reader, Asked(TEXT, PAIR, PLAN, 1, 3), kept)
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT))
    model = AutoModel.from_pretrained(resolve(DEFAULT)).eval()
    batch = sa.Annotator(tokenizer)(TEXT, PAIR, return_tensors="pt")
    sa.sparsify(model, PLAN, tokenizer=tokenizer)
    with torch.no_grad():
        model(**batch)
    report = sa.describe(model, batch)
    dense = model._sparseattn_state.last.compiled.layers[1].dense[0, 0].numpy()
    assert ((bits_of(picture) & EXECUTED > 0) == dense).all()
    assert picture["counts"]["plan"]["sparsity"] == report.sparsity
    assert picture["counts"]["plan"]["degree"] == pytest.approx(report.mean_degree)
    assert picture["counts"]["layer"]["allowed"] == report.layers[1].allowed
    assert picture["counts"]["head"]["allowed"] == dense.sum()


def test_each_pair_says_which_rule_allows_it(reader, kept) -> None:
    picture = masks(reader, Asked(TEXT, None, PLAN, 1, 0), kept)
    bits = bits_of(picture)
    assert [cause["kind"] for cause in picture["causes"]] == ["near", "similar", "global"]
    place = np.arange(len(bits))
    near = abs(place[:, None] - place) <= 1
    assert ((bits & 1 > 0) == near).all()
    glob = (place[:, None] == 0) | (place == 0)
    assert ((bits & 4 > 0) == glob).all()
    labels = picture["tokens"]["labels"]
    first, second = (at for at, label in enumerate(labels) if label == "the")
    assert bits[first, second] & 2, "the same word is the most similar one"


def test_breaking_the_plan_changes_the_picture(reader, kept, monkeypatch) -> None:
    """The pairs that are drawn come from the pass, not from the pattern's words."""
    asked = Asked(TEXT, None, "neighbor(radius=1)", 0, 0)
    before = bits_of(masks(reader, asked, kept))
    state = type(reader.state)
    compiled = state.compile

    def broken(self, tokens):
        plan = compiled(self, tokens)
        rule = plan.layers[0]
        cut = type(rule)(((tuple(range(12)), Rule((Band(0),))),), 12, rule.valid, rule.padded)
        return type(plan)((cut, *plan.layers[1:]))

    monkeypatch.setattr(state, "compile", broken)
    from sparseattn.app.jobs import Kept

    after = bits_of(masks(reader, asked, Kept(1 << 20)))
    assert (before & EXECUTED > 0).sum() == 3 * len(before) - 2
    assert (after & EXECUTED > 0).sum() == len(after)
    assert not (after[0, 1] & 1), "a cause is named of no pair that was not computed"


def test_a_pair_that_no_rule_explains_is_drawn_all_the_same(reader, kept, monkeypatch) -> None:
    """A pattern that allows more in the pass than it says afterwards."""
    rule = Neighbor.rule
    run = type(reader).run

    def wider(self, passage, plan, watched):
        with monkeypatch.context() as patch:
            patch.setattr(Neighbor, "rule", lambda *_: Rule((Band(3),)))
            return run(self, passage, plan, watched)

    monkeypatch.setattr(type(reader), "run", wider)
    bits = bits_of(masks(reader, Asked(TEXT, None, "neighbor(radius=1)"), kept))
    assert Neighbor.rule is rule
    assert bits[0, 3] == EXECUTED


def test_attention_is_that_of_the_stock_model(reader, kept) -> None:
    _, _, attentions = eager(TEXT, PAIR)
    picture = masks(reader, Asked(TEXT, PAIR, "neighbor(radius=1)", -1, 2), kept)
    assert picture["layer"] == 5
    assert abs(weights_of(picture, "dense") - attentions[5][0, 2].numpy()).max() < 2e-5
    under = weights_of(picture, "plan")
    assert not under[bits_of(picture) == 0].any()
    assert abs(under.sum(axis=1) - 1).max() < 1e-3


def test_the_receptive_field_is_a_product_of_masks(reader, kept) -> None:
    asked = Asked(TEXT, None, "neighbor(radius=1)")
    found = reach(reader, replace(asked, token=5), kept)["layers"]
    length = len(masks(reader, asked, kept)["tokens"]["labels"])
    assert found[0] == [4, 5, 6]
    assert found[2] == [at for at in range(length) if abs(at - 5) <= 3]
    asked = [Asked(TEXT, None, PLAN, token=at) for at in range(length)]
    reached = [reach(reader, each, kept)["layers"] for each in asked]
    with sa.sparsified(reader.encoder, PLAN, tokenizer=reader.tokenizer):
        report = sa.describe(reader.encoder, reader.read(TEXT, None, frozenset({"words"})).columns)
    means = [np.mean([len(each[layer]) for each in reached]) / length for layer in range(6)]
    assert means == pytest.approx([layer.receptive_field for layer in report.layers])


def test_a_long_text_is_sent_in_tiles_with_a_map(reader, kept, monkeypatch) -> None:
    text = " ".join([TEXT] * 6)
    plan = "neighbor(radius=2) | similarity(k=1) | global(cls)"
    whole = bits_of(masks(reader, Asked(text, None, plan), kept))
    monkeypatch.setattr(view, "WHOLE", 16)
    monkeypatch.setattr(view, "TILE", 16)
    monkeypatch.setattr(view, "MAP", 10)
    part = masks(reader, Asked(text, None, plan, 0, 0, 20, 999), kept)
    top, left = part["tile"]["top"], part["tile"]["left"]
    assert (top, left) == (20, len(whole) - 16)
    assert (bits_of(part) == whole[top : top + 16, left : left + 16]).all()
    side, step = part["map"]["side"], part["map"]["step"]
    assert side == -(-len(whole) // step), "no empty margin"
    small = np.frombuffer(b64decode(part["map"]["mask"]), np.uint8).reshape(side, side)
    for row in range(side):
        for col in range(side):
            block = whole[row * step : (row + 1) * step, col * step : (col + 1) * step]
            expected = np.bitwise_or.reduce(block.flatten()) if block.size else 0
            assert small[row, col] == expected


@pytest.fixture
def modern(tmp_path) -> Reader:
    """A ModernBERT of random weights, with local layers and no limit that matters here."""
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(0)
    small = ModernBertConfig(
        num_hidden_layers=2, num_attention_heads=2, hidden_size=32, intermediate_size=32,
        vocab_size=30522, local_attention=16, global_attn_every_n_layers=2, pad_token_id=0,
        max_position_embeddings=8192, cls_token_id=101, sep_token_id=102,
    )  # fmt: skip
    ModernBertModel(small).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT))
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(tmp_path)
    return Reader(str(tmp_path))


def test_a_text_of_1500_tokens_has_all_that_a_short_one_has(modern, kept) -> None:
    """Attention and receptive fields against transformers' own, in a tile of a local layer."""
    text, plan = "fox dog " * 750, "neighbor(radius=3) | similarity(k=2) | global(cls)"
    asked = Asked(text, None, plan, 1, 1, 900, 700)
    long = masks(modern, asked, kept)
    size = long["tile"]["size"]
    assert (long["tile"]["top"], long["tile"]["left"], size) == (900, 700, view.TILE)
    stock = AutoModel.from_pretrained(modern.name, attn_implementation="eager").eval()
    batch = modern.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        weights = stock(**batch, output_attentions=True).attentions[1][0, 1].numpy()
    tile = weights[900 : 900 + size, 700 : 700 + size]
    assert tile.max() > 0.01
    assert abs(weights_of(long, "dense") - tile).max() < 2e-5
    assert not weights_of(long, "plan")[bits_of(long) == 0].any()
    with sa.sparsified(modern.encoder, plan, tokenizer=modern.tokenizer):
        report = sa.describe(modern.encoder, batch)
        compiled = modern.state.compile(modern.state.tokens(dict(batch)))
    assert long["counts"]["plan"]["allowed"] == report.allowed
    assert long["counts"]["layer"]["sparsity"] == pytest.approx(report.layers[1].sparsity)
    first, second = (rule.dense[0].any(dim=0) for rule in compiled.layers)
    heard = reach(modern, replace(asked, token=1000), kept)["layers"]
    assert heard[0] == first[1000].nonzero()[:, 0].tolist()
    assert heard[1] == first[second[1000]].any(dim=0).nonzero()[:, 0].tolist()


def test_spans_are_places_in_the_text(reader, kept) -> None:
    text = "🙂 naïve שלום fox"
    tokens = masks(reader, Asked(text, PAIR), kept)["tokens"]
    shown = [
        (text, PAIR)[side][start:end]
        for (start, end), side in zip(tokens["spans"], tokens["sides"], strict=True)
        if side >= 0
    ]
    assert {"🙂", "naïve", "fox", "quick"} <= set(shown)
    assert tokens["labels"][0] == "[CLS]"
    assert tokens["sides"][0] == -1


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (Asked(""), DataError, "the text is empty"),
        (Asked("a" * 200_001), DataError, "200,001 characters are more"),
        (Asked("a", None, "neighbour(1)"), PatternError, "did you mean 'neighbor'"),
        (Asked("a", None, "plan.json"), PlanError, "is a file"),
        (Asked("a", None, "{"), PlanError, "begins like JSON"),
        (Asked("a", None, "layer 9: self()"), PlanError, "9"),
        (Asked("a", None, "full()", 6), PlanError, "6"),
        (Asked("a", None, '{"format": "sparseattn-plan-1", "shape": [3], "entries": ['
               '{"pattern": "full()", "layers": ":", "heads": ":"}]}'),
         PlanError, "made for a model of 1 layer"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(reader, kept, asked, error, words) -> None:
    with pytest.raises(error, match=words):
        masks(reader, asked, kept)


def test_a_text_beyond_the_models_positions_is_cut_and_says_so(reader, kept) -> None:
    picture = masks(reader, Asked("fox " * 600, None, "self()"), kept)
    assert len(picture["tokens"]["labels"]) == 512
    assert any("the last 90 tokens were left out" in each for each in picture["notices"])


def test_a_token_of_5000_characters(reader, kept) -> None:
    picture = masks(reader, Asked("x" * 5000), kept)
    assert picture["tokens"]["spans"][1] == (0, 5000)


def test_a_line_without_effect_is_noticed(reader, kept) -> None:
    picture = masks(reader, Asked("a", None, "layer 0: self(); layers :: full()"), kept)
    assert any("has no effect" in each for each in picture["notices"])


def test_a_plan_is_read_from_its_json() -> None:
    plan = sa.Plan.of(PLAN)
    assert plan_from(json.dumps(plan.to_json())) == plan
    assert plan_from("") == sa.Plan.of("full()")


def test_a_model_without_encoder_attention_is_refused(tmp_path) -> None:
    from transformers import GPT2Config, GPT2Model

    small = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=30522)
    GPT2Model(small).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(resolve(DEFAULT)).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="attends causally"):
        Reader(str(tmp_path))
