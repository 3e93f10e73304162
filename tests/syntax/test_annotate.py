"""Annotations of single texts against spaCy's own tokens, heads and sentences."""

from __future__ import annotations

import pickle

import pytest
import torch
from datasets import Dataset

from sparseattn import Annotator
from tests.syntax import oracle
from tests.syntax.sentences import BLANK, TRICKY

COLUMNS = ["word_index", "sentence_index", "head_index", "tag_index", "special_tokens_mask"]
LONG = "The committee, which met on Monday, didn't vote. Its chair left early! Nobody cared."


@pytest.mark.parametrize("text", [*TRICKY, *BLANK, ""], ids=lambda text: ascii(text[:24]))
def test_every_token_has_the_word_sentence_head_and_tag_that_spacy_gives(annotator, text):
    encoding = annotator(text)
    expected = oracle.columns(text, oracle.spans_of(annotator.tokenizer, text))
    assert {name: encoding[name] for name in expected} == expected


def test_only_special_tokens_have_no_word(annotator):
    encoding = annotator(TRICKY + BLANK + [""])
    for words, ids, mask in zip(
        encoding["word_index"], encoding["input_ids"], encoding["special_tokens_mask"], strict=True
    ):
        assert len(words) == len(ids) == len(mask)
        assert [word < 0 for word in words] == [bool(special) for special in mask]


def test_a_contraction_by_hand(plain):
    encoding = plain("She doesn't know.")
    assert encoding.tokens() == ["[CLS]", "she", "doesn", "'", "t", "know", ".", "[SEP]"]
    assert encoding["word_index"] == [-1, 0, 1, 2, 2, 3, 4, -1]
    assert encoding["head_index"] == [-1, 3, 3, 3, 3, 3, 3, -1]
    assert encoding["sentence_index"] == [-1, 0, 0, 0, 0, 0, 0, -1]


def test_an_emoji_of_seven_code_points_is_one_token_of_its_first_word(plain):
    encoding = plain("a 👩‍👩‍👧‍👦 b")
    assert encoding.tokens()[2] == "[UNK]"
    words = encoding["word_index"]
    assert words[2] == 1
    assert words[3] > words[2]


def test_whitespace_tokens_belong_to_the_word_on_the_left_or_else_the_first(bytelevel, cache):
    encoding = Annotator(bytelevel, cache_dir=cache)("  \n ab  \t c ", add_special_tokens=False)
    words = list(zip(encoding.tokens(), encoding["word_index"], strict=True))
    blank = [word for token, word in words if token.strip("ĠĊĉ") == ""]
    assert (blank[0], blank[-1]) == (0, 1)
    assert encoding["word_index"] == sorted(encoding["word_index"])
    assert {word for token, word in words if "c" in token} == {1}


def test_one_text_and_a_list_of_it_are_the_same(plain):
    one, several = plain(LONG), plain([LONG])
    assert {name: [one[name]] for name in one} == dict(several)


def test_the_tokenizers_own_columns_are_untouched(annotator):
    options = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    theirs, ours = annotator.tokenizer(TRICKY, **options), annotator(TRICKY, **options)
    assert {name: ours[name] for name in theirs} == dict(theirs)
    assert set(ours) == {*theirs, *COLUMNS}
    assert annotator(TRICKY)["special_tokens_mask"] == theirs["special_tokens_mask"]


def test_an_existing_encoding_gets_the_same_columns(annotator):
    columns, ours = annotator.columns(annotator.tokenizer(TRICKY), TRICKY), annotator(TRICKY)
    assert columns == {name: ours[name] for name in COLUMNS}
    one = annotator.tokenizer(LONG)
    assert annotator.columns(one, LONG)["word_index"] == [annotator(LONG)["word_index"]]


def test_an_empty_text_has_special_tokens_only(plain):
    encoding = plain(["", "a"])
    assert encoding["word_index"][0] == [-1, -1]
    assert encoding["head_index"][0] == [-1, -1]
    assert plain("", add_special_tokens=False)["word_index"] == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_by_the_tokenizer_is_special(annotator, side):
    texts = [LONG, "Short."]
    encoding = annotator(texts, padding=True, padding_side=side)
    for index, text in enumerate(texts):
        real = [bool(bit) for bit in encoding["attention_mask"][index]]
        for name in COLUMNS:
            column = encoding[name][index]
            kept = [value for value, is_real in zip(column, real, strict=True) if is_real]
            rest = {value for value, is_real in zip(column, real, strict=True) if not is_real}
            assert kept == annotator(text)[name]
            assert rest <= {1 if name == "special_tokens_mask" else -1}


def test_tensors(plain):
    several = plain([LONG, "Short."], padding=True, return_tensors="pt")
    assert {name: (c.dtype, c.shape) for name, c in several.items()} == {
        name: (torch.int64, several["input_ids"].shape) for name in several
    }
    assert plain(LONG, return_tensors="pt")["head_index"].tolist() == [plain(LONG)["head_index"]]


def test_in_dataset_map(plain):
    rows = Dataset.from_dict({"text": TRICKY, "label": list(range(len(TRICKY)))})
    mapped = rows.map(lambda batch: plain(batch["text"]), batched=True, batch_size=5)
    assert mapped["word_index"][:] == plain(TRICKY)["word_index"]
    assert mapped["label"][:] == rows["label"][:]


def test_order_company_and_process_do_not_matter(plain):
    together = plain(TRICKY)["head_index"]
    assert pickle.loads(pickle.dumps(plain))(TRICKY)["head_index"] == together
    assert plain(TRICKY[::-1])["head_index"] == together[::-1]
    assert plain(TRICKY[3])["head_index"] == together[3]
