"""Models loaded by `from_pretrained` alone, whose plan comes out of their config.

No hook sees such a model's batch, so only plans that need nothing but positions can be applied;
everything else is an error that names `sparseattn.load`.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import PlanNotAppliedError
from sparseattn.models.config import FIELD, SparsityConfig
from sparseattn.models.interface import LAYERS, Pass
from sparseattn.tokens import TokenBatch

__all__ = ["pass_from_config"]

#: The last pass of each living config (by identity: configs do not hash), kept so that the layers
#: of one forward pass share its masks.
_LAST: dict[int, tuple[Tensor | None, tuple[int, ...], Pass]] = {}


def pass_from_config(module: nn.Module, query: Tensor, mask: Tensor | None) -> tuple[Pass, int]:
    """Compiles the plan in a module's config for the batch that it attends over.

    Args:
        module: An attention module.
        query: Shape: [batch, heads, length, head width].
        mask: The padding mask; None for no padding. Shape: [batch, length], bool.

    Returns:
        The pass, and the layer that the module computes.

    Raises:
        PlanNotAppliedError: The model was sparsified and its hooks are gone; or its config has no
            plan; or the plan needs more than positions, or the model does not number its layers.
    """
    if hasattr(module, LAYERS):
        raise PlanNotAppliedError(
            f"the plan did not reach {type(module).__name__}: the hooks of sparsify() are gone; "
            "call sparsify() again"
        )
    config, index = getattr(module, "config", None), getattr(module, "layer_idx", None)
    data = getattr(config, FIELD, None)
    if config is None or data is None:
        raise PlanNotAppliedError(
            "attn_implementation='sparseattn' needs a plan and this model's config has none; "
            "call sparsify(), or load a saved model with sparseattn.load()"
        )
    if not isinstance(index, int):
        raise PlanNotAppliedError(
            f"{type(module).__name__} does not know which layer it is; load this model with "
            "sparseattn.load()"
        )
    shape = (query.shape[0], query.shape[1], query.shape[2])
    last = _LAST.get(id(config))
    if last is not None and last[0] is mask and last[1] == shape:
        return last[2], index
    made = _compiled(SparsityConfig.from_json(data), config, shape, mask, query.device)
    if last is None:
        weakref.finalize(config, _LAST.pop, id(config), None)
    _LAST[id(config)] = (mask, shape, made)
    return made, index


def _compiled(
    record: SparsityConfig,
    config: Any,
    shape: tuple[int, int, int],
    mask: Tensor | None,
    device: Any,
) -> Pass:
    if record.plan.needs:
        raise PlanNotAppliedError(
            f"this model's plan needs {', '.join(sorted(record.plan.needs))}, which "
            "from_pretrained() alone cannot supply; load it with sparseattn.load()"
        )
    batch, heads, length = shape
    if mask is None:
        mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    layers = [heads] * config.num_hidden_layers
    return Pass(record.plan.compile(TokenBatch(mask.bool()), layers), record.backend)
