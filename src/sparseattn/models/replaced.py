"""Notices that an encoder which follows a plan is replaced by one that follows none.

`sparsify` leaves a hook on the model that it is given. A model that plain `from_pretrained` loaded,
or whose encoder alone was sparsified, has none: with another encoder in it nothing of this package
would run, while its config, which goes into config.json, still claims the plan. So PyTorch is asked
to tell of every module that is put somewhere; that costs nothing in a forward pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from sparseattn.errors import PlanNotAppliedError
from sparseattn.models.config import FIELD
from sparseattn.models.state import followed


@cache
def watch() -> None:
    """Begins to look at replaced modules; doing it again changes nothing."""
    register_module_module_registration_hook(_replaced)


def _replaced(owner: nn.Module, name: str, _module: nn.Module | None) -> None:
    before: Any = owner._modules.get(name)
    if before is None or name != getattr(owner, "base_model_prefix", None):
        return
    if not hasattr(owner, "config") or refuse_dense in owner._forward_pre_hooks.values():
        return
    if hasattr(before, "config") and followed(before) is not None:
        owner.register_forward_pre_hook(refuse_dense)


def refuse_dense(owner: Any, _args: Any) -> None:
    """Pre-hook of a model whose encoder was replaced: it may not claim a plan and run dense."""
    if FIELD in vars(owner.config) and followed(owner.base_model) is None:
        raise PlanNotAppliedError(
            f"the encoder of {type(owner).__name__} was replaced by one that follows no plan; "
            "call sparsify() again, or restore()"
        )
