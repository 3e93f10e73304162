"""Families that compute their own attention: the plan reaches them through their mask.

These do not use transformers' AttentionInterface (setting another implementation only logs a
warning), but their self-attention takes a mask that broadcasts over [batch, heads, q, k]. A
forward pre-hook rewrites it. What they compute stays dense, as with the `masked` backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.backend import AUTO
from sparseattn.errors import BackendError
from sparseattn.rules import LayerRule

__all__ = ["ONLY", "check_backend", "entering", "mask_for", "modules_of"]

#: The backend of these families, and why.
ONLY = ("masked", "the only one for this model family")


def _added(rule: LayerRule, like: Tensor) -> Tensor:
    """A mask to add to the scores. Shape: [batch, heads or 1, length, length]."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return torch.where(rule.finite, zero, torch.finfo(like.dtype).min)


def _boolean(rule: LayerRule, like: Tensor) -> Tensor:  # noqa: ARG001
    """A mask that is 1 where a pair is allowed. Shape: [batch, heads or 1, length, length]."""
    return rule.dense.long()


#: The self-attention classes of these families, and the kind of mask that each one takes.
_FAMILIES: dict[str, Callable[[LayerRule, Tensor], Tensor]] = {
    "transformers.models.mpnet.modeling_mpnet.MPNetSelfAttention": _added,
    "transformers.models.deberta.modeling_deberta.DisentangledSelfAttention": _boolean,
    "transformers.models.deberta_v2.modeling_deberta_v2.DisentangledSelfAttention": _boolean,
    "transformers.models.roformer.modeling_roformer.RoFormerSelfAttention": _added,
    "transformers.models.rembert.modeling_rembert.RemBertSelfAttention": _added,
    "transformers.models.megatron_bert.modeling_megatron_bert.MegatronBertSelfAttention": _added,
}


def _kind(module: nn.Module) -> Callable[[LayerRule, Tensor], Tensor] | None:
    return _FAMILIES.get(f"{type(module).__module__}.{type(module).__qualname__}")


def modules_of(encoder: nn.Module) -> list[Any]:
    """The self-attention modules that take a mask, in the order of the layers; maybe none."""
    return [module for module in encoder.modules() if _kind(module) is not None]


def entering(module: nn.Module, valid: Tensor) -> Tensor:
    """The mask to call an encoder with, such that its layers are handed one.

    Given a mask of two dimensions and no padding, most families hand their layers None; one of four
    dimensions they hand on as it is.

    Args:
        module: One of `modules_of`.
        valid: True for a real token. Shape: [batch, length], bool.
    """
    return valid.long() if _kind(module) is _boolean else valid[:, None, None, :]


def mask_for(module: nn.Module, rule: LayerRule, like: Tensor) -> Tensor:
    """The mask that gives a module's attention the pairs of a rule.

    Args:
        module: One of `modules_of`.
        rule: What each query may attend to.
        like: Hidden states, for dtype and device.
    """
    kind = _kind(module)
    assert kind is not None, "only called for modules_of"
    return kind(rule, like)


def check_backend(encoder: nn.Module, backend: str) -> None:
    """Checks that a backend asked for by name can serve these families.

    Raises:
        BackendError: It cannot.
    """
    if backend not in (AUTO, "masked"):
        raise BackendError(
            f"backend {backend!r} cannot serve {type(encoder).__name__}: it computes its own "
            "attention and takes only a mask; choose from: auto, masked"
        )
