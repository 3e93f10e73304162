"""Families that compute their own attention: the plan reaches them through their mask.

These do not use transformers' AttentionInterface (setting another implementation only logs a
warning), but their self-attention takes a mask that broadcasts over [batch, heads, q, k]. A
forward pre-hook rewrites it. What they compute stays dense, as with the `masked` backend.

Where the mask is added to the scores it carries the bias of a compiled plan as well.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import PlanNotAppliedError, UnsupportedModelError
from sparseattn.models.interface import KEYWORD, Pass

__all__ = [
    "ONLY",
    "RUNNING",
    "check_scores",
    "entry_mask",
    "keep_weights",
    "modules_of",
    "rewrite_mask",
]

#: The backend of these families, and why.
ONLY = ("masked", "the only one for this model family")

#: The pass that the innermost encoder of such a family runs in this thread.
RUNNING: ContextVar[Pass | None] = ContextVar("sparseattn_running", default=None)

#: The self-attention classes of these families, and whether their mask is added to the scores;
#: otherwise it is 1 where a pair is allowed.
_ADDED = {
    "transformers.models.mpnet.modeling_mpnet.MPNetSelfAttention": True,
    "transformers.models.deberta.modeling_deberta.DisentangledSelfAttention": False,
    "transformers.models.deberta_v2.modeling_deberta_v2.DisentangledSelfAttention": False,
    "transformers.models.roformer.modeling_roformer.RoFormerSelfAttention": True,
    "transformers.models.rembert.modeling_rembert.RemBertSelfAttention": True,
    "transformers.models.megatron_bert.modeling_megatron_bert.MegatronBertSelfAttention": True,
}


#: The types of the models whose mask is not.
_BOOLEAN = {name.split(".")[2].replace("_", "-") for name, added in _ADDED.items() if not added}


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def modules_of(encoder: nn.Module) -> list[Any]:
    """The self-attention modules that take a mask, in the order of the layers; maybe none."""
    return [module for module in encoder.modules() if _name(module) in _ADDED]


def entry_mask(module: nn.Module, valid: Tensor) -> Tensor:
    """The mask to call an encoder with, such that its layers are handed one.

    Given a mask of two dimensions and no padding, most families hand their layers None; one of four
    dimensions they hand on as it is. `valid` has the shape [batch, length].
    """
    return valid[:, None, None, :] if _ADDED[_name(module)] else valid.long()


def check_scores(config: Any) -> None:
    """Refuses a model to whose attention scores nothing can be added, by its config.

    Raises:
        UnsupportedModelError: It is one.
    """
    if config.model_type in _BOOLEAN:
        raise UnsupportedModelError(_refusal(f"a model of type {config.model_type!r}"))


def _refusal(who: str) -> str:
    return (
        f"{who} takes only a boolean mask, so degrees cannot be learned or calibrated on it, nor "
        "its attention probed; plans by hand work: sparsify(model, 'neighbor(radius=4)'), or an "
        "arm such as uniform(sparsity=0.8) in a study"
    )


def keep_weights(current: Pass, output: Any) -> None:
    """Keeps the attention weights of the watched layers, which the encoder returned last."""
    for layer in current.watched:
        current.weights[layer] = output[-1][layer].detach().float()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def rewrite_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Pre-hook of a self-attention: gives it its layer's rule, and bias, for a mask.

    The mask that it is handed is marked with the pass: activation checkpointing hands the same one
    in again, in whichever thread, when other passes may have come since.
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
    current: Pass | None = getattr(mask, KEYWORD, None) or RUNNING.get()
    if current is None:
        raise PlanNotAppliedError(
            f"no plan reached {type(module).__name__}; call sparsify() again, and checkpoint "
            "activations with use_reentrant=False"
        )
    if mask is not None:
        setattr(mask, KEYWORD, current)
    index = current.layer(module)
    rule, bias = current.compiled.layers[index], current.compiled.bias(index)
    current.chosen[index] = ONLY
    if _ADDED[_name(module)]:
        added = hidden.new_zeros(()) if bias is None else bias.to(hidden.dtype)
        mask = torch.where(rule.finite, added, torch.finfo(hidden.dtype).min)
    elif bias is None:
        mask = rule.dense.long()
    else:
        raise UnsupportedModelError(_refusal(type(module).__name__))
    if len(args) > 1:
        return (hidden, mask, *args[2:]), kwargs
    return args, {**kwargs, "attention_mask": mask}
