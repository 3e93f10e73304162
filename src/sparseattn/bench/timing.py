"""Timing runs against each other, and stand-ins for an attention that costs nothing.

*The floor* is a model with attention replaced by its values: queries and keys are computed without
use, and a backward pass does not reach them. *The bound* also passes gradients to them: no
attention that trains its queries and keys can cost less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import torch
from torch import Tensor

from sparseattn.backend import Backend, Call, backends
from sparseattn.rules import LayerRule


def alternate(
    runs: Mapping[str, Callable[[], object]], repeats: int, busy: bool = False
) -> dict[str, float]:
    """The median of `samples` for each run, in seconds."""
    return {name: median(times) for name, times in samples(runs, repeats, busy=busy).items()}


def samples(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    warm: int = 1,
    busy: bool = False,
    most: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """The times of runs in seconds; they take turns, so that noise hits all alike.

    Args:
        runs: What to time, by name.
        repeats: Timed rounds.
        warm: Rounds before these.
        busy: Count the processor time of the calling thread, which the load of a busy machine does
            not change, instead of the time on the clock. Only sensible with one thread on a CPU.
        most: Slow runs, and the number of rounds that they take part in, without warm-up.
    """
    clock = thread_time if busy else perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    limits = most or {}
    for index in range(warm + repeats):
        for name, run in runs.items():
            if name in limits and not 0 <= index - warm < limits[name]:
                continue
            _wait()
            start = clock()
            run()
            _wait()
            if index >= warm:
                times[name].append(clock() - start)
    return times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step(run: Callable[[], Tensor], trains: bool) -> Callable[[], None]:
    """A forward pass without gradients, or a forward and a backward pass."""

    def pass_() -> None:
        with torch.set_grad_enabled(trains):
            out = run()
            if trains:
                torch.autograd.backward(out.float().square().mean())

    return pass_


class _Floor(Backend):
    """Returns the values."""

    summary = "the values themselves, for timing"

    def attend(self, call: Call) -> Tensor:
        return call.value

    def computed(self, rule: LayerRule) -> int:  # noqa: ARG002
        return 0


class _SameGradient(torch.autograd.Function):
    """The values; their gradient is that of queries and keys as well."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ARG004
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG004
        return grad, grad, grad


class _Bound(_Floor):
    """Returns the values, and passes gradients to queries and keys as well."""

    summary = "the values, and gradients for all three, for timing"

    def attend(self, call: Call) -> Tensor:
        out: Tensor = _SameGradient.apply(call.query, call.key, call.value)  # type: ignore[no-untyped-call]
        return out


@contextmanager
def free_attention(trains: bool) -> Iterator[str]:
    """Registers the bound (if it trains) or the floor as a backend inside a `with`; its name."""
    name, backend = ("bound", _Bound()) if trains else ("floor", _Floor())
    backends.add(name, type(backend), backend)
    try:
        yield name
    finally:
        backends.discard(name)
