"""Block-sparse attention: only the tiles that hold an allowed pair, forward and backward.

On a CPU a compiled kernel walks the lists of `kernels.tiles`. Elsewhere, and where the kernel is
missing, PyTorch gathers the keys of each tile and computes the tiles as a batch. Neither builds a
tensor of length x length for windows, global tokens and listed keys.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from sparseattn.backend import Backend, Call, DistanceBias
from sparseattn.backends.kernels.cpu import launch as cpu
from sparseattn.backends.kernels.gathered import attend_gathered, gathered_tiles
from sparseattn.backends.kernels.tiles import Tiles, tiles_of
from sparseattn.rules import LayerRule

#: Queries a tile of the kernel, which is the lanes of its vectors.
_LANES = 16


class Tiled(Backend):
    """Computes the tiles that hold an allowed pair."""

    name: ClassVar[str] = "tiled"
    summary: ClassVar[str] = "only tiles that hold an allowed pair; trains on CPU and CUDA"

    def reasons(self, call: Call) -> list[str]:
        reasons = []
        if isinstance(call.bias, Tensor):
            reasons.append("it adds no bias of its own to each pair (learned soft masks)")
        if not call.query.is_floating_point():
            reasons.append(f"it computes with floating-point numbers, not {call.query.dtype}")
        return reasons

    def remark(self, device: str) -> str | None:
        reason = cpu.uninstalled() if device == "cpu" else "its kernel is for CPUs"
        return f"in plain PyTorch, which is slower ({reason})" if reason else "compiled by numba"

    def attend(self, call: Call) -> Tensor:
        context: Tensor = _attend(call)
        return context

    def computed(self, rule: LayerRule) -> int:
        """See `Backend.computed`: keys once for each query of their tile, and scattered pairs."""
        return _tiles(rule).computed

    def work(self, rule: LayerRule) -> float:
        """See `Backend.work`: a scattered pair takes as long as some entries of a tile."""
        return _tiles(rule).work


def _tiles(rule: LayerRule) -> Tiles:
    """The lists of a rule for the path that computes it."""
    native = rule.valid.device.type == "cpu" and cpu.uninstalled() is None
    return tiles_of(rule, _LANES, scatter=True) if native else gathered_tiles(rule)


# A caller's graph ends here and goes on after. transformers' models load the compiler anyway.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend(call: Call) -> Tensor:
    if not call.query.numel():
        return torch.zeros_like(call.query)
    if call.query.device.type == "cpu" and call.query.dtype in cpu.DTYPES:
        if (problem := cpu.missing(call.query.dtype, call.trains)) is None:
            return _attend_native(call)
        _warn(problem)
    return attend_gathered(call)


@cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"the tiled backend runs on its slower path in plain PyTorch: {problem}",
        RuntimeWarning,
        stacklevel=2,
    )


def _attend_native(call: Call) -> Tensor:
    dtype = cpu.DTYPES[call.query.dtype]
    width = call.query.shape[-1]
    states = [_readable(x.to(dtype)) for x in (call.query, call.key, call.value)]
    seed = int(torch.randint(2**31, ())) if call.dropout else 0
    bias = None
    if isinstance(call.bias, DistanceBias):  # from the farthest key behind to that ahead
        bias = pad(call.bias.values.to(dtype).flip(1), (_LANES, _LANES))
        # A gradient for each text: threads share no sums.
        bias = bias.expand(len(call.query), -1, -1)
    context: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        *states, bias, _tiles(call.rule), cpu.Setting(call.scale, call.dropout, seed)
    )
    return context[..., :width].to(call.query.dtype)


def _readable(states: Tensor) -> Tensor:
    """The same numbers with rows that the kernel can load: whole vectors, side by side."""
    if rest := -states.shape[-1] % _LANES:
        return pad(states, (0, rest))
    return states if states.stride(-1) == 1 else states.contiguous()


class _Attention(torch.autograd.Function):
    """The kernel's forward and backward passes."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        tiles: Tiles,
        setting: cpu.Setting,
    ) -> Tensor:
        context = cpu.empty_result(q, zero=tiles.padded)
        lse = torch.empty(q.shape[:3], dtype=q.dtype)
        cpu.run("forward", tiles, setting, Q=q, K=k, V=v, OUT=context, LSE=lse, BIAS=bias)
        ctx.save_for_backward(q, k, v, bias, context, lse)
        ctx.tiles, ctx.setting = tiles, setting
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, context, lse = ctx.saved_tensors
        states = {"Q": q, "K": k, "V": v, "OUT": context, "LSE": lse, "BIAS": bias}
        dq = cpu.empty_result(q, zero=ctx.tiles.padded)
        dk, dv = cpu.empty_result(k, zero=True), cpu.empty_result(v, zero=True)
        dbias = None if bias is None else bias.new_zeros(bias.shape)
        grads = {"DOUT": _readable(grad), "DQ": dq, "DK": dk, "DV": dv, "DBIAS": dbias}
        cpu.run("backward", ctx.tiles, ctx.setting, **states, **grads)
        return dq, dk, dv, dbias, None, None
