"""Timing things against each other, and a stand-in for an attention that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor

from sparseattn.backends import base
from sparseattn.backends.base import Backend, Call
from sparseattn.rules import LayerRule

__all__ = ["FLOOR", "alternate", "floor", "samples", "step"]

#: The backend that `floor` lends.
FLOOR = "floor"


def alternate(
    runs: Mapping[str, Callable[[], object]], repeats: int, warm: int = 1, busy: bool = False
) -> dict[str, float]:
    """The median time of each run, in seconds; they take turns, so that noise hits all alike.

    Args:
        runs: What to time, by name.
        repeats: Timed rounds.
        warm: Rounds before these.
        busy: See `samples`.
    """
    return {name: median(times) for name, times in samples(runs, repeats, warm, busy).items()}


def samples(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    warm: int = 1,
    busy: bool = False,
    most: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Every time of runs that take turns, in seconds.

    Args:
        runs: What to time, by name.
        repeats: Timed rounds.
        warm: Rounds before these.
        busy: Count the processor time of the calling thread, which the load of a busy machine does
            not change, instead of the time on the clock. Only sensible with one thread on a CPU.
        most: Slow runs, and the number of rounds that they take part in, without any before.
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

    def go() -> None:
        with torch.set_grad_enabled(trains):
            out = run()
            if trains:
                torch.autograd.backward(out.float().square().mean())

    return go


class _Floor(Backend):
    """Returns the values: what a model costs without its attention."""

    summary = "the values themselves, for timing"

    def attend(self, call: Call) -> Tensor:
        """See `Backend.attend`."""
        return call.value

    def computed(self, rule: LayerRule) -> int:  # noqa: ARG002
        """See `Backend.computed`."""
        return 0


@contextmanager
def floor() -> Iterator[str]:
    """Lends a backend that computes nothing, and takes it away: no model may keep it."""
    base._REGISTRY[FLOOR] = _Floor()
    try:
        yield FLOOR
    finally:
        del base._REGISTRY[FLOOR]
