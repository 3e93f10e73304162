"""Finding the encoder inside whatever a user passes, and the attention layers inside it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import UnsupportedModelError
from sparseattn.models import interface, masks

__all__ = ["Attention", "attention_dropout", "encoder_of", "probe"]

_WORKING = (
    "BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA, ALBERT, ERNIE, MobileBERT, "
    "Data2Vec-text, RoBERTa-PreLayerNorm, ModernBERT, NomicBERT, Jina v3, EuroBERT, ESM, Splinter, "
    "LayoutLM, MarkupLM, T5 encoders, MPNet, DeBERTa, DeBERTa-v2, RoFormer, RemBERT, Megatron-BERT"
)


@dataclass(frozen=True)
class Attention:
    """One attention layer of an encoder.

    Attributes:
        module: The module that computes it; several layers may share one.
        heads: Number of query heads.
        window: Radius in tokens beyond which the stock model does not look; None for no limit.
        width: Head width; 0 where only its mask can be reached.
        biased: Whether it adds a bias to its scores.
    """

    module: nn.Module
    heads: int
    window: int | None = None
    width: int = 0
    biased: bool = False


def encoder_of(model: nn.Module) -> Any:
    """The innermost transformers encoder of a model: what receives `input_ids`.

    Looks through PEFT, sentence-transformers, DataParallel and compiled wrappers.

    Raises:
        UnsupportedModelError: There is none, or more than one, or it is not an encoder.
    """
    from transformers import PreTrainedModel

    found: list[PreTrainedModel] = []
    for module in model.modules():
        inside = any(module is part for outer in found for part in outer.modules())
        if isinstance(module, PreTrainedModel) and not inside:
            found.append(module)
    if len(found) != 1:
        names = ", ".join(type(one).__name__ for one in found) or "none"
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no single transformers model (found: {names}); "
            "pass the encoder itself"
        )
    encoder = found[0].base_model
    if getattr(encoder.config, "is_encoder_decoder", False) and _has_decoder(encoder):
        raise UnsupportedModelError(
            f"{type(encoder).__name__} is an encoder-decoder; only its encoder can be sparsified, "
            "for example as T5EncoderModel"
        )
    return encoder


def attention_dropout(config: Any) -> float:
    """The chance that a model drops an attention weight in training, by its config."""
    names = ("attention_probs_dropout_prob", "attention_dropout", "dropout_rate")
    return float(next((getattr(config, name) for name in names if hasattr(config, name)), 0.0))


def _has_decoder(encoder: nn.Module) -> bool:
    return isinstance(getattr(encoder, "decoder", None), nn.Module)


def probe(encoder: Any) -> list[Attention]:
    """Runs the encoder on three tokens and records which attention modules it calls, in order.

    A run says what no list of classes can: whether the model really goes through the interface,
    which module computes which layer (ALBERT calls one for all), and with how many heads.

    Raises:
        UnsupportedModelError: The encoder does not let its attention be replaced.
    """
    hooked = masks.modules_of(encoder)
    if hooked:
        return [Attention(module, module.num_attention_heads) for module in hooked]
    calls: list[Attention] = []

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **kw: Any
    ) -> Any:
        if getattr(module, "is_causal", False) or key.shape[2] != query.shape[2]:
            raise UnsupportedModelError(
                f"{type(encoder).__name__} attends causally or to other sequences "
                f"({type(module).__name__}); only encoders can be sparsified"
            )
        window = kw.get("sliding_window")
        radius, biased = None if window is None else window - 1, kw.get("position_bias") is not None
        calls.append(Attention(module, query.shape[1], radius, query.shape[-1], biased))
        repeated = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
        return repeated.transpose(1, 2), None

    if not type(encoder)._can_set_attn_implementation():
        raise UnsupportedModelError(_unsupported(encoder, "it does not use AttentionInterface"))
    with _probing(encoder, record):
        try:
            encoder(**_three_tokens(encoder))
        except UnsupportedModelError:
            raise
        except Exception as error:
            why = f"a probe of three tokens failed: {str(error).splitlines()[0]}"
            raise UnsupportedModelError(_unsupported(encoder, why)) from error
    if not calls:
        raise UnsupportedModelError(_unsupported(encoder, "its attention is never called"))
    return calls


def _unsupported(encoder: nn.Module, why: str) -> str:
    return f"{type(encoder).__name__} cannot be sparsified: {why}; what works: {_WORKING}"


def _three_tokens(encoder: Any) -> dict[str, Tensor]:
    parameter = next(encoder.parameters())
    if "input_ids" not in inspect.signature(encoder.forward).parameters:
        raise UnsupportedModelError(_unsupported(encoder, "it does not read text (input_ids)"))
    size = getattr(encoder.config, "vocab_size", None) or 8
    return {
        "input_ids": torch.tensor([[5, 6, 7]], device=parameter.device).remainder(size),
        "attention_mask": torch.ones(1, 3, dtype=torch.long, device=parameter.device),
    }


@contextmanager
def _probing(encoder: Any, record: Any) -> Iterator[None]:
    """Lets `record` stand in for the attention; leaves no gradient and no random draw behind."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    before = encoder.config._attn_implementation
    name = f"{interface.NAME}_probe"
    AttentionInterface.register(name, record)
    AttentionMaskInterface.register(name, interface.padding_mask)
    encoder.set_attn_implementation(name)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        encoder.set_attn_implementation(before)
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]
