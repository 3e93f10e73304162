"""Hooks of a packed encoder's layers: real tokens in, the padded batch out."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparseattn.models.interface import KEYWORD, Pass
from sparseattn.models.layout import Layout


def _layout(kwargs: dict[str, Any]) -> Layout | None:
    current: Pass | None = kwargs.get(KEYWORD)
    return None if current is None else current.layout


def pack_inputs(_layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Pre-hook: packs hidden states, and what goes with each token, such as rotations."""
    if (layout := _layout(kwargs)) is None:
        return None
    return layout.pack_all(args), {name: layout.pack_all(value) for name, value in kwargs.items()}


def unpack_outputs(_layer: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Hook: lays hidden states out by text again."""
    if (layout := _layout(kwargs)) is None:
        return None
    return layout.unpack_all(output)
