"""How far what a model computes is from what another one does: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["differences", "results"]

#: No gradient is held to less than this share of the largest one: that of a key's bias is zero but
#: for rounding.
_LEAST = 1e-3


def results(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> list[Tensor]:
    """An output, and the gradients of parameters for a fixed loss over it.

    Args:
        run: Computes the output.
        parameters: What to differentiate by; none at all for the output alone.
    """
    wanted = list(parameters)
    with torch.set_grad_enabled(bool(wanted)):
        out = run()
    if not wanted:
        return [out]
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    grads = torch.autograd.grad((out.float() * weights).sum(), wanted, allow_unused=True)
    none = torch.zeros(1, device=out.device)
    return [out.detach(), *(none if grad is None else grad for grad in grads)]


def differences(ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> tuple[float, float]:
    """The largest differences of two `results`; what is no number stays none.

    Returns:
        Of the output, and of a gradient as a share of the largest number in its tensor.
    """
    apart, largest = (
        torch.tensor([float(number) for number in numbers])
        for numbers in (
            [(a - b).abs().max() for a, b in zip(ours, wanted, strict=True)],
            [b.abs().max() for b in wanted],
        )
    )
    grads = largest[1:]
    if not len(grads):
        return float(apart[0]), 0.0
    scale = grads.clamp(min=max(_LEAST * float(grads.max()), torch.finfo(grads.dtype).tiny))
    return float(apart[0]), float((apart[1:] / scale).max())
