"""Tiny random models of every supported family, built from their configs."""

from __future__ import annotations

from typing import Any

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

#: Model class, config class, and what differs from `SMALL`.
INTERFACE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", DROP),
    "roberta": ("RobertaModel", "RobertaConfig", {**DROP, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", {**DROP, "pad_token_id": 1}),
    "camembert": ("CamembertModel", "CamembertConfig", {**DROP, "pad_token_id": 1}),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 37,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
    "electra": ("ElectraModel", "ElectraConfig", {**DROP, "embedding_size": 16}),
    "albert": ("AlbertModel", "AlbertConfig", {**DROP, "embedding_size": 16}),
    "ernie": ("ErnieModel", "ErnieConfig", DROP),
    "mobilebert": (
        "MobileBertModel",
        "MobileBertConfig",
        {**DROP, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    ),
    "data2vec-text": ("Data2VecTextModel", "Data2VecTextConfig", {**DROP, "pad_token_id": 1}),
    "roberta-prelayernorm": (
        "RobertaPreLayerNormModel",
        "RobertaPreLayerNormConfig",
        {**DROP, "pad_token_id": 1},
    ),
    "modernbert": (
        "ModernBertModel",
        "ModernBertConfig",
        {
            "local_attention": 8,
            "global_attn_every_n_layers": 3,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "mlp_dropout": 0.0,
        },
    ),
    "nomic-bert": ("NomicBertModel", "NomicBertConfig", DROP),
    "jina-v3": ("JinaEmbeddingsV3Model", "JinaEmbeddingsV3Config", {**DROP, "pad_token_id": 1}),
    "eurobert": (
        "EuroBertModel",
        "EuroBertConfig",
        {"num_key_value_heads": 2, "attention_dropout": 0.0},
    ),
    "esm": ("EsmModel", "EsmConfig", {**DROP, "pad_token_id": 1, "mask_token_id": 98}),
    "splinter": ("SplinterModel", "SplinterConfig", DROP),
    "layoutlm": ("LayoutLMModel", "LayoutLMConfig", DROP),
    "markuplm": (
        "MarkupLMModel",
        "MarkupLMConfig",
        {**DROP, "xpath_unit_hidden_size": 4, "max_depth": 4},
    ),
    "t5-encoder": (
        "T5EncoderModel",
        "T5Config",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 37,
            "num_layers": 3,
            "num_heads": 4,
            "dropout_rate": 0.0,
        },
    ),
}
MASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mpnet": ("MPNetModel", "MPNetConfig", {**DROP, "pad_token_id": 1}),
    "deberta": (
        "DebertaModel",
        "DebertaConfig",
        {**DROP, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v2": (
        "DebertaV2Model",
        "DebertaV2Config",
        {
            **DROP,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    "roformer": ("RoFormerModel", "RoFormerConfig", {**DROP, "embedding_size": 32}),
    "rembert": (
        "RemBertModel",
        "RemBertConfig",
        {**DROP, "input_embedding_size": 16, "output_embedding_size": 16},
    ),
    "megatron-bert": ("MegatronBertModel", "MegatronBertConfig", DROP),
}
FAMILIES = {**INTERFACE, **MASKED}


def build(family: str, kind: str | None = None, **changes: Any) -> Any:
    """A tiny random model of a family in evaluation mode; `kind` replaces the class's ending."""
    model_name, config_name, differs = FAMILIES[family]
    if kind is not None:
        model_name = model_name.removesuffix("Model").removesuffix("Encoder") + kind
    config = getattr(transformers, config_name)(**{**SMALL, **differs, **changes})
    torch.manual_seed(0)
    return getattr(transformers, model_name)(config).eval()


def batch(lengths: tuple[int, ...] = (23, 7, 1), side: str = "right") -> dict[str, torch.Tensor]:
    """Random ids, padded on one side."""
    longest = max(lengths)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (len(lengths), longest), generator=generator)
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    return {"input_ids": ids, "attention_mask": mask}
