"""Tiny random models of every supported family, built from their configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
}
DROP = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}

ROBERTA = {**DROP, "pad_token_id": 1}
NARROW = {**DROP, "embedding_size": 16}
DISENTANGLED = {**DROP, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 37}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.0}
LOCAL = {"local_attention": 8, "global_attn_every_n_layers": 3}

#: How the names of the classes begin, and what differs from `SMALL`.
INTERFACE: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", DROP),
    "roberta": ("Roberta", ROBERTA),
    "xlm-roberta": ("XLMRoberta", ROBERTA),
    "camembert": ("Camembert", ROBERTA),
    "distilbert": ("DistilBert", {**DISTIL, "dropout": 0.0, "attention_dropout": 0.0}),
    "electra": ("Electra", NARROW),
    "albert": ("Albert", NARROW),
    "ernie": ("Ernie", DROP),
    "mobilebert": ("MobileBert", {**NARROW, "intra_bottleneck_size": 16, "true_hidden_size": 16}),
    "data2vec-text": ("Data2VecText", ROBERTA),
    "roberta-prelayernorm": ("RobertaPreLayerNorm", ROBERTA),
    "modernbert": (
        "ModernBert",
        {**LOCAL, **dict.fromkeys(("attention_dropout", "embedding_dropout", "mlp_dropout"), 0.0)},
    ),
    "nomic-bert": ("NomicBert", DROP),
    "jina-v3": ("JinaEmbeddingsV3", ROBERTA),
    "eurobert": ("EuroBert", {"num_key_value_heads": 2, "attention_dropout": 0.0}),
    "esm": ("Esm", {**ROBERTA, "mask_token_id": 98}),
    "splinter": ("Splinter", DROP),
    "layoutlm": ("LayoutLM", DROP),
    "markuplm": ("MarkupLM", {**DROP, "xpath_unit_hidden_size": 4, "max_depth": 4}),
    "t5-encoder": ("T5", T5),
}
#: Those that compute their own attention: under a plan it is replaced, or handed a mask alone.
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "mpnet": ("MPNet", ROBERTA),
    "roformer": ("RoFormer", {**DROP, "embedding_size": 32}),
    "rembert": ("RemBert", {**DROP, "input_embedding_size": 16, "output_embedding_size": 16}),
    "megatron-bert": ("MegatronBert", DROP),
}
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta": ("Deberta", DISENTANGLED),
    "deberta-v2": ("DebertaV2", {**DISENTANGLED, "conv_kernel_size": 3, "conv_act": "gelu"}),
}
FAMILIES = {**INTERFACE, **OWN, **MASKED}


def build(family: str, kind: str | None = None, **changes: Any) -> Any:
    """A tiny random model of a family in evaluation mode; `kind` replaces the class's ending."""
    name, differs = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **differs, **changes})
    kind = kind or ("EncoderModel" if family == "t5-encoder" else "Model")
    torch.manual_seed(0)
    return getattr(transformers, f"{name}{kind}")(config).eval()


def batch(lengths: tuple[int, ...] = (23, 7, 1), side: str = "right") -> dict[str, torch.Tensor]:
    """Random ids, padded on one side."""
    longest = max(lengths)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    return {"input_ids": ids, "attention_mask": mask}


def run(model: Any, *args: Any, **inputs: torch.Tensor) -> torch.Tensor:
    """A model's first output, without gradients."""
    with torch.no_grad():
        return model(*args, **inputs)[0]


def tokenizer(limit: int) -> Any:
    """A tokenizer of five words."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "sat", "mat", "on"]
    words = {name: index for index, name in enumerate(names)}
    return transformers.BertTokenizer(words, model_max_length=limit)


def sentence_transformer(folder: Path, family: str, **changes: Any) -> Any:
    """A `SentenceTransformer` around a tiny encoder, whose files stay in the folder."""
    st = pytest.importorskip("sentence_transformers")
    parts = pytest.importorskip("sentence_transformers.models")
    build(family, **changes).save_pretrained(folder)
    tokenizer(64).save_pretrained(folder)
    modules = [parts.Transformer(str(folder)), parts.Pooling(32)]
    return st.SentenceTransformer(modules=modules, device="cpu")
