"""What a model adds to its scores by how far apart two tokens stand, as MPNet and T5 do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparseattn.errors import UnsupportedModelError

#: The most tokens of the text that shows it.
_TOKENS = 1024
#: Up to this part of them it may change with the distance; beyond, it must stay as it is.
_PART = 4


def biases_of(
    added: Callable[[int], list[Tensor | None]], longest: int | None
) -> list[Tensor | None]:
    """The bias of each layer by the distance of two tokens, as `attention.table_of` takes it.

    Args:
        added: What layers add to the scores of a text of so many tokens.
            Shape of each: [1, heads, length, length].
        longest: The most tokens that the model takes; None without a limit.

    Raises:
        UnsupportedModelError: It depends on more than the distance, or never stays as it is.
    """
    shown = added(4)
    if all(bias is None for bias in shown):
        return shown
    length = min(longest or _TOKENS, _TOKENS)
    found: dict[int, Tensor] = {}
    layers = added(length)
    for bias in layers:
        if bias is not None and id(bias) not in found:
            found[id(bias)] = _by_distance(bias[0], whole=length == longest)
    return [None if bias is None else found[id(bias)] for bias in layers]


def _by_distance(bias: Tensor, whole: bool) -> Tensor:
    """From [heads, length, length] to [heads, 2 * length - 1].

    Args:
        bias: What is added to the score of each query and key.
        whole: Whether no text is longer.
    """
    length = bias.shape[1]
    table = torch.cat([bias[:, :, 0].flip(1)[:, :-1], bias[:, 0]], dim=1)
    every = torch.arange(length)
    if not torch.equal(table[:, every - every[:, None] + length - 1], bias):
        raise UnsupportedModelError(
            "what the model adds to its scores depends on more than how far apart two tokens are, "
            "so it cannot be exported"
        )
    far = length - length // _PART
    if not whole and not (
        torch.equal(table[:, :far], table[:, :1].expand(-1, far))
        and torch.equal(table[:, -far:], table[:, -1:].expand(-1, far))
    ):
        raise UnsupportedModelError(
            "what the model adds to its scores still changes with the distance of two tokens at "
            f"{length // _PART}, so it cannot be exported"
        )
    return table
