"""Compiled FlexAttention: training and inference on CUDA, inference on a CPU.

A compiled FlexAttention that fails once, is compiled too often, or runs where compiling is switched
off, falls back to its dense eager form without a message. Here `fullgraph` turns the first two into
errors, runs of the kernel are counted, so that a call without one is an error as well, and results
are compared with SDPA before the first use for each kind of device and type.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseattn.backend import Backend, Call
from sparseattn.backends.kernels import flex_mask
from sparseattn.backends.kernels.rule_cache import RuleCache
from sparseattn.backends.masked import Masked
from sparseattn.errors import BackendError, first_line
from sparseattn.rules import Band, GlobalTokens, LayerRule, Rule

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

#: The problem that the self-test showed, by kind of call (device, type, with gradients).
_SELF_TESTS: dict[tuple[str, torch.dtype, bool], str | None] = {}
_MASKS: RuleCache[BlockMask] = RuleCache(lambda mask: mask.kv_indices.numel(), read_gpu=True)
#: Each shape of batch and kind of rule is compiled once; PyTorch's own limit is eight.
_MAX_SHAPES = 256
#: The shapes that were compiled.
_COMPILED_SHAPES: set[tuple[object, ...]] = set()


class Flex(Backend):
    """Computes the blocks that hold an allowed pair, with a kernel compiled by PyTorch."""

    name: ClassVar[str] = "flex"
    summary: ClassVar[str] = "compiled FlexAttention; CUDA training and inference, CPU inference"

    def reasons(self, call: Call) -> list[str]:
        query, device = call.query, call.query.device.type
        types = {"cuda": (torch.float32, torch.bfloat16, torch.float16)}
        supported = types.get(device, (torch.float32, torch.bfloat16))
        reasons = [
            "it has no dropout of attention weights" if call.dropout else None,
            "it adds no bias to the scores" if call.bias is not None else None,
            None
            if query.dtype in supported
            else f"it does not compute in {query.dtype} on {device}",
            "its head width is at least 16" if query.shape[-1] < 16 else None,
            "on a CPU it computes no gradients; use it under torch.no_grad()"
            if device == "cpu" and call.trains
            else None,
            None if len({query.dtype, call.key.dtype, call.value.dtype}) == 1 else "mixed types",
            flex_mask.refused(call.rule),
            _uncompilable(device),
            _SELF_TESTS.get(_kind(call)),
            _too_many()
            if len(_COMPILED_SHAPES) >= _MAX_SHAPES and _shape(call) not in _COMPILED_SHAPES
            else None,
        ]
        return [reason for reason in reasons if reason is not None]

    def remark(self, device: str) -> str | None:  # noqa: ARG002
        return "compiled at the first batch of each shape, for 5 to 40 s"

    def attend(self, call: Call) -> Tensor:
        kind = _kind(call)
        if kind not in _SELF_TESTS:
            _SELF_TESTS[kind] = _self_test(kind)
        if problem := _SELF_TESTS[kind]:
            raise BackendError(f"backend 'flex' cannot compute this: {problem}")
        if not call.query.numel():
            return torch.zeros_like(call.query)
        try:
            context: Tensor = _attend(call)
            return context
        except Exception as error:
            raise BackendError(f"backend 'flex' failed: {_message(error)}") from error

    def computed(self, rule: LayerRule) -> int:
        """See `Backend.computed`: whole blocks, padding included."""
        size = _size(rule.valid.device.type)
        windows = flex_mask.windows_of(rule, flex_mask.bucket(rule.length))
        blocks = flex_mask.blocks_of(windows, size, full=False)
        return int(blocks.expand(len(rule.valid), rule.heads, -1, -1).sum()) * size**2


def _kind(call: Call) -> tuple[str, torch.dtype, bool]:
    return call.query.device.type, call.query.dtype, call.trains


def _shape(call: Call) -> tuple[object, ...]:
    """What a kernel is compiled for."""
    batch, heads, length, width = call.query.shape
    padded = flex_mask.bucket(length)
    learns = tuple(x.requires_grad for x in (call.query, call.key, call.value))
    mask = flex_mask.compiled_for(call.rule, padded)
    return _kind(call), learns, batch, heads, padded, width, mask


def _size(device: str) -> int:
    """Tokens a block: narrow windows waste large blocks, GPUs need them."""
    return 128 if device == "cuda" else 32


@cache
def _uncompilable(device: str) -> str | None:
    """Why nothing can be compiled for a device, or None."""
    if device == "cuda":
        return None if find_spec("triton") else "triton is not installed"
    if device != "cpu":
        return f"it has no kernel for {device}"
    capability = torch.backends.cpu.get_cpu_capability()
    if sys.platform == "darwin" or capability not in ("AVX2", "AVX512"):
        return "on a CPU it needs AVX2, and not macOS"
    # The one that PyTorch would start; it looks for no other.
    compiler = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler is on this machine: {compiler} is not found; install it or set CXX"
    return None


#: How often a compiled kernel has run.
_RUNS = [0]


@cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(
        flex_attention, backend=_counted, dynamic=False, fullgraph=True
    )
    return compiled


def _counted(graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
    """PyTorch's own compiler; the kernel counts its runs."""
    from torch._inductor.compile_fx import compile_fx

    kernel: Any = compile_fx(graph, inputs)

    def run(*arguments: Any) -> Any:
        _RUNS[0] += 1
        return kernel(*arguments)

    return run


# A caller's graph ends here; what this calls is compiled all the same.
@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator, no-untyped-call]
def _attend(call: Call) -> Tensor:
    length = call.rule.length
    padded = flex_mask.bucket(length)
    states: list[Tensor] = [call.query, call.key, call.value]
    if padded > length:  # `pad` copies in any case
        states = [pad(x, (0, 0, 0, padded - length)) for x in states]
    states = [x.contiguous() for x in states]
    mask = _mask(call.rule, _size(call.query.device.type))
    config: Any = torch._dynamo.config
    shape, before = _shape(call), _RUNS[0]
    with (
        nullcontext() if shape in _COMPILED_SHAPES else _compiling(),
        config.patch(recompile_limit=_MAX_SHAPES, accumulated_recompile_limit=4 * _MAX_SHAPES),
    ):
        context = _compiled()(*states, block_mask=mask, scale=call.scale)
    if _RUNS[0] == before:
        raise RuntimeError("no compiled kernel ran; is torch.compile switched off?")
    _COMPILED_SHAPES.add(shape)
    return context[:, :, :length]


#: The warning that PyTorch's compiler causes when it reads states that have a history.
_GRAD_WARNING = "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed"
_COMPILE_LOCK = Lock()


@contextmanager
def _compiling() -> Iterator[None]:
    """Hides that warning, which would end compiling where warnings are errors.

    Only for the first call of a shape: Python's filters belong to all threads, and take time.
    """
    with _COMPILE_LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", _GRAD_WARNING, UserWarning)
        yield


def _mask(rule: LayerRule, size: int) -> BlockMask:
    """The block mask of a rule, for its length's bucket."""

    def build() -> BlockMask:
        return flex_mask.block_mask(flex_mask.windows_of(rule, flex_mask.bucket(rule.length)), size)

    return _MASKS.get(rule, size, build)


def _self_test(kind: tuple[str, torch.dtype, bool]) -> str | None:
    """Compares a small call of a kind with SDPA: the problem, or None."""
    device, dtype, trains = kind
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 2, 100, 32, generator=generator).to(device, dtype) for _ in range(3)]
    valid = torch.ones(2, 100, dtype=torch.bool, device=device)
    valid[1, 70:] = False
    first = torch.arange(100, device=device)[None] == 0
    groups = (((0,), Rule((Band(5), GlobalTokens(first)))), ((1,), Rule((Band(40),))))
    rule = LayerRule(groups, 2, valid)
    results = []
    for attend in (_attend, Masked().attend):
        leaves = q, k, v = tuple(x.clone().requires_grad_(trains) for x in states)
        try:
            out = attend(Call(q, k, v, rule, 0.2))
            grads = torch.autograd.grad(out.float().square().sum(), leaves) if trains else ()
        except Exception as error:
            return f"it failed its self-test: {_message(error)}"
        results.append([out, *grads])
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    for ours, theirs in zip(*results, strict=True):
        if not torch.allclose(ours, theirs, atol=tolerance, rtol=tolerance):
            worst = float((ours - theirs).abs().max())
            return f"it failed its self-test: up to {worst:.2g} away from SDPA"
    return None


def _message(error: Exception) -> str:
    if type(error).__name__ == "FailOnRecompileLimitHit":
        return _too_many()
    return f"{type(error).__name__}: {first_line(error)}"


def _too_many() -> str:
    return (
        f"it has been compiled for {_MAX_SHAPES} shapes of batches, and no more are allowed; "
        "pad texts to fewer lengths"
    )
