"""Finding the encoder inside whatever a user passes, its attention layers, and running it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import SparseAttnError, UnsupportedModelError, first_line
from sparseattn.models import interface, masks, own_attention
from sparseattn.models.config import ATTRIBUTE, NAME

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
        window: Radius in tokens beyond which the stock model does not look; None for no limit.
        width: Head width; 0 where only its mask can be reached.
        biased: Whether it adds a bias to its scores.
    """

    module: nn.Module
    heads: int
    window: int | None = None
    width: int = 0
    biased: bool = False


def owner_of(model: Any) -> Any:
    """The transformers model, head included, inside whatever the user passed.

    Looks through PEFT, sentence-transformers, DataParallel and compiled wrappers.

    Raises:
        UnsupportedModelError: There is none, or more than one.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"a model is a transformers model or a wrapper around one, not {model!r}; load it "
            "first, for example with transformers.AutoModel.from_pretrained(name)"
        )
    owners = list({id(module): module for module in _pretrained(model)}.values())
    if len(owners) != 1:
        names = ", ".join(type(module).__name__ for module in owners) or "none"
        raise UnsupportedModelError(
            f"{type(model).__name__} holds no single transformers model (found: {names}); "
            "pass the encoder itself"
        )
    return owners[0]


def _pretrained(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost transformers models."""
    from transformers import PreTrainedModel

    if isinstance(module, PreTrainedModel):
        yield module
    else:
        for child in module.children():
            yield from _pretrained(child)


def encoder_of(model: Any) -> Any:
    """The innermost transformers encoder of a model: what receives `input_ids`.

    Raises:
        UnsupportedModelError: See `owner_of`; or it is not an encoder.
    """
    encoder = owner_of(model).base_model
    if getattr(encoder.config, "is_encoder_decoder", False) and isinstance(
        getattr(encoder, "decoder", None), nn.Module
    ):
        raise UnsupportedModelError(
            f"{type(encoder).__name__} is an encoder-decoder; only its encoder can be sparsified, "
            "for example as T5EncoderModel"
        )
    return encoder


def attention_dropout(config: Any) -> float:
    """The chance that a model drops an attention weight in training, by its config."""
    names = ("attention_probs_dropout_prob", "attention_dropout", "dropout_rate")
    return float(next((getattr(config, name) for name in names if hasattr(config, name)), 0.0))


def default_implementation(encoder: Any) -> str:
    """The attention implementation that transformers chooses for an encoder."""
    return str(encoder._check_and_adjust_attn_implementation(None))


def attention_layers(encoder: Any) -> list[Attention]:
    """Runs the encoder on three tokens and records which attention modules it calls, in order.

    A run says what no list of classes can: whether the model really goes through the interface,
    which module computes which layer (ALBERT calls one for all), and with how many heads.
    """
    if modules := masks.modules_of(encoder):
        return [Attention(module, module.num_attention_heads) for module in modules]
    if modules := own_attention.modules_of(encoder):
        biased = encoder.config.model_type == "mpnet"
        return [
            Attention(m, m.num_attention_heads, width=m.attention_head_size, biased=biased)
            for m in modules
        ]
    calls: list[Attention] = []

    def record(
        module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **kw: Any
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
        raise _unsupported(encoder, "it does not use AttentionInterface")
    if "input_ids" not in inspect.signature(encoder.forward).parameters:
        raise _unsupported(encoder, "it does not read text (input_ids)")
    device = next(encoder.parameters()).device
    ids = torch.tensor([[5, 6, 7]], device=device) % (getattr(encoder.config, "vocab_size", 0) or 8)
    with _recording(encoder, record):
        try:
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        except UnsupportedModelError:
            raise
        except Exception as error:
            why = f"a probe of three tokens failed: {first_line(error)}"
            raise _unsupported(encoder, why) from error
    if not calls:
        raise _unsupported(encoder, "its attention is never called")
    return calls


def _unsupported(encoder: nn.Module, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(encoder).__name__} cannot be sparsified: {why}; what works: {_WORKING}"
    )


@contextmanager
def _recording(encoder: Any, record: Any) -> Iterator[None]:
    """Lets `record` stand in for the attention; leaves no gradient and no random draw behind."""
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    before = encoder.config._attn_implementation
    name = f"{NAME}_probe_{get_ident()}"  # of this thread: others may probe models of their own
    interface.register(name, record)
    encoder.set_attn_implementation(name)
    try:
        _refuse_grafted(encoder, name)
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        encoder.set_attn_implementation(before)
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]


def _refuse_grafted(encoder: Any, name: str) -> None:
    """A layer out of another model asks that model's config which attention to call."""
    for path, module in encoder.named_modules():
        config = getattr(module, "config", None)
        asked = getattr(config, "_attn_implementation", name)
        if asked != name and "Attention" in type(module).__name__:
            raise UnsupportedModelError(
                f"attention layer {path} of {type(encoder).__name__} has the config of another "
                "model and would stay dense; set its .config to this model's before sparsify()"
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turns dropout off; afterwards each module is in the mode in which it was."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def special_of(config: Any) -> set[int]:
    """Ids that a config names, such as that of the padding token."""
    named = {value for name, value in vars(config).items() if name.endswith("_token_id")}
    return {value for value in named if isinstance(value, int)}


def random_batch(encoder: Any, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Ordinary tokens of the encoder's vocabulary, the same each time, padded on the right.

    The annotations, if its plan needs any, are one sentence of one-token words of one kind, all
    under the first.
    """
    config = encoder.config
    special = special_of(config)
    size = getattr(config, "vocab_size", None) or 8
    ordinary = torch.tensor([index for index in range(size) if index not in special])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(ordinary), (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.where(mask, ordinary[drawn], getattr(config, "pad_token_id", None) or 0)
    columns = {"input_ids": ids, "attention_mask": mask.long()}
    state = getattr(encoder, ATTRIBUTE, None)
    if state is not None and state.config.plan.needs:
        words = torch.arange(max(lengths)).expand_as(ids)
        columns["word_index"] = words.where(mask, -1)
        same = torch.zeros_like(ids).where(mask, -1)
        columns |= dict.fromkeys(("sentence_index", "head_index", "tag_index"), same)
        columns["special_tokens_mask"] = (~mask).long()
    device = next(encoder.parameters()).device
    return {name: column.to(device) for name, column in columns.items()}


def random_outputs(encoder: Any, lengths: Sequence[int], done: str = "lengthened") -> Tensor:
    """The encoder's first output for a random batch. Shape: [texts, longest, hidden width].

    Args:
        encoder: What to run.
        lengths: Real tokens of each text.
        done: What the error says that it cannot be.
    """
    who = f"{type(encoder).__name__} cannot be {done}: "
    if "input_ids" not in inspect.signature(encoder.forward).parameters:
        raise UnsupportedModelError(f"{who}it does not read text (input_ids)")
    batch = random_batch(encoder, lengths)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            output: Tensor = encoder(**batch)[0]
    except SparseAttnError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{who}a text of {max(lengths):,} tokens does not run: {first_line(error)}"
        ) from error
    return output
