"""DeBERTa: its scores are more than products, so the plan reaches its attention through the mask.

Its self-attention takes a mask of 1 where a pair is allowed, over [batch, heads, q, k]. A forward
pre-hook rewrites it. What is computed stays dense, as with the `masked` backend.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from sparseattn.errors import PlanNotAppliedError, UnsupportedModelError
from sparseattn.models.interface import KEYWORD, Pass

#: The backend of these families, and why.
ONLY = ("masked", "the only one for this model family")

#: The pass that the innermost encoder of such a family runs in this thread.
RUNNING: ContextVar[Pass | None] = ContextVar("sparseattn_running", default=None)

#: The self-attention classes of these families.
_CLASSES = (
    "transformers.models.deberta.modeling_deberta.DisentangledSelfAttention",
    "transformers.models.deberta_v2.modeling_deberta_v2.DisentangledSelfAttention",
)
#: The types of the models.
_TYPES = ("deberta", "deberta-v2")


def modules_of(encoder: nn.Module) -> list[Any]:
    """The self-attention modules that take a mask, in the order of the layers; maybe none."""
    return [module for module in encoder.modules() if class_name(module) in _CLASSES]


def class_name(module: nn.Module) -> str:
    """The class of a module, with where it is defined."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def pass_of(module: nn.Module, mask: Any) -> Pass:
    """The pass that a self-attention is called in, with what mask it is handed.

    The mask is marked with the pass: activation checkpointing hands the same one in again, in
    whichever thread, when other passes may have come since.

    Raises:
        PlanNotAppliedError: There is none.
    """
    current: Pass | None = getattr(mask, KEYWORD, None) or RUNNING.get()
    if current is None:
        raise no_plan(module)
    if mask is not None:
        setattr(mask, KEYWORD, current)
    return current


def no_plan(module: nn.Module) -> PlanNotAppliedError:
    """The error where no plan reaches a self-attention."""
    return PlanNotAppliedError(
        f"no plan reached {type(module).__name__}; call sparsify() again, and checkpoint "
        "activations with use_reentrant=False"
    )


def check_scores(config: Any) -> None:
    """Refuses a model to whose attention scores nothing can be added, by its config.

    Raises:
        UnsupportedModelError: It is one.
    """
    if config.model_type in _TYPES:
        raise UnsupportedModelError(_refusal(f"a model of type {config.model_type!r}"))


def _refusal(who: str) -> str:
    return (
        f"{who} takes only a boolean mask, so degrees cannot be learned on it; calibrate finds "
        "some without training, and plans by hand work: sparsify(model, 'neighbor(radius=4)'), or "
        "an arm such as uniform(sparsity=0.8) in a study"
    )


def keep_weights(current: Pass, output: Any) -> None:
    """Keeps the attention weights of the watched layers, which the encoder returned last."""
    for layer in current.watched:
        current.kept[layer] = output[-1][layer].detach()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def rewrite_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Pre-hook of a self-attention: gives it its layer's rule for a mask."""
    hidden = args[0] if args else kwargs["hidden_states"]
    current = pass_of(module, args[1] if len(args) > 1 else kwargs.get("attention_mask"))
    index = current.layer(module)
    current.chosen[index] = ONLY
    if current.compiled.bias(index) is not None:
        raise UnsupportedModelError(_refusal(type(module).__name__))
    mask = current.compiled.layers[index].dense.long()
    if len(args) > 1:
        return (hidden, mask, *args[2:]), kwargs
    return args, {**kwargs, "attention_mask": mask}
