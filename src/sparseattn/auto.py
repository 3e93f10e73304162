"""The backend `auto`: the one that should be fastest on this machine, by measured costs.

The time of a backend is taken as `overhead + slope * score entries / threads`, the entries by
`Backend.work`. Overhead and slope
are measured once for each device and type, and for inference, training and dropout, in some tenths
of a second, and stored in a file. On a CPU they are processor times of one thread: a busy machine
does not change those. A decision is stored with its rule, so that deciding again is a look-up.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sparseattn.backend import AUTO, BY_NAME, Backend, Call, backend
from sparseattn.backends.kernels.cpu.launch import DTYPES, missing
from sparseattn.backends.kernels.key_lists import banded
from sparseattn.errors import BackendError
from sparseattn.files import cache_folder, write_whole
from sparseattn.rules import Band, LayerRule, Rule

#: Up to this length `masked` is taken unmeasured: there is little to save and lists cost time too.
SHORT = 128
#: The backend that takes every call.
FALLBACK = "masked"
#: The shape of the calls that are timed, and two lengths for each backend. A short call takes a GPU
#: as long as an empty one, so that a line through short lengths would say nothing of long ones.
_BATCH, _HEADS, _WIDTH = 1, 4, 64
_LENGTHS = {
    "cpu": {"masked": (128, 512), "tiled": (256, 2048)},
    "cuda": {"masked": (512, 4096), "tiled": (2048, 16384), "flex": (1024, 16384)},
}
#: Below this length lists are not built from a mask only to learn what they would cost.
_MIN_UNSTRUCTURED = 1024

#: The decisions for a rule, by workload, threads and whether there is a bias.
_DECISIONS: WeakKeyDictionary[LayerRule, dict[Any, tuple[str, str]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Cost:
    """Seconds for a number of score entries.

    Attributes:
        overhead: Seconds for none.
        slope: Seconds for each, at a head width of 64.
    """

    overhead: float
    slope: float

    def seconds(self, entries: float, width: int, threads: int) -> float:
        """The expected time."""
        return self.overhead + self.slope * entries * max(width, 16) / _WIDTH / max(threads, 1)


@dataclass(frozen=True)
class Workload:
    """What costs are measured for.

    Attributes:
        device: Kind of device.
        dtype: Type of the states.
        trains: Whether gradients are computed.
        drops: Whether attention weights are dropped.
    """

    device: str
    dtype: torch.dtype
    trains: bool
    drops: bool

    @classmethod
    def of(cls, call: Call) -> Workload:
        """The workload of a call."""
        query = call.query
        return cls(query.device.type, query.dtype, call.trains, call.dropout > 0)

    def __str__(self) -> str:
        """The workload as a key of the file."""
        dtype = str(self.dtype).removeprefix("torch.")
        work = "training" if self.trains else "inference"
        dropout = " with dropout" if self.drops else ""
        uses_kernel = self.device == "cpu" and self.dtype in DTYPES
        no_kernel = ", no kernel" if uses_kernel and missing(self.dtype, self.trains) else ""
        return f"{_machine(self.device)}{no_kernel}, {dtype}, {work}{dropout}"


def select(name: str, call: Call) -> tuple[Backend, str]:
    """Chooses the backend for a call.

    Args:
        name: A backend, or `auto`.
        call: What it is to compute.

    Returns:
        The backend, and why it was chosen.

    Raises:
        BackendError: The named backend cannot compute the call; the message lists every reason.
    """
    if name == AUTO:
        return choose(call)
    chosen = backend(name)
    if problems := chosen.reasons(call):
        raise BackendError(f"backend {name!r} cannot compute this: {'; '.join(problems)}")
    return chosen, BY_NAME


def choose(call: Call) -> tuple[Backend, str]:
    """The backend that should be fastest for a call, and why."""
    if call.rule.length <= SHORT:
        return backend(FALLBACK), f"auto: at most {SHORT} tokens, where sparsity saves nothing"
    workload = Workload.of(call)
    threads = torch.get_num_threads() if workload.device == "cpu" else 1
    key = (workload, threads, call.bias is None)
    decisions = _DECISIONS.setdefault(call.rule, {})
    if key not in decisions:
        decisions[key] = _decide(call, workload, threads)
    name, reason = decisions[key]
    return backend(name), reason


def _decide(call: Call, workload: Workload, threads: int) -> tuple[str, str]:
    others = [name for name in _LENGTHS.get(workload.device, ()) if name != FALLBACK]
    problems = {name: "; ".join(backend(name).reasons(call)) for name in others}
    able = [name for name, problem in problems.items() if not problem]
    unable = [f"{name} cannot: {problem}" for name, problem in problems.items() if problem]
    if not able:
        return FALLBACK, f"auto: the only backend that can ({', '.join(unable)})"
    if call.rule.is_full:
        return FALLBACK, "auto: every pair is allowed"
    structured = all(banded(rule) is not None for _, rule in call.rule.groups)
    if call.rule.length < _MIN_UNSTRUCTURED and not structured:
        return FALLBACK, f"auto: no structure to use at less than {_MIN_UNSTRUCTURED} tokens"
    by_name = costs(workload)
    # Measuring runs a backend, which may show that it cannot: flex tests itself at its first use.
    unable += [f"{name} could not be measured" for name in able if name not in by_name]
    width = call.query.shape[-1]
    times = {
        name: by_name[name].seconds(backend(name).work(call.rule), width, threads)
        for name in (FALLBACK, *able)
        if name in by_name
    }
    best = min(times, key=lambda name: times[name])
    timings = [f"{name} {1000 * seconds:.3g} ms" for name, seconds in times.items()]
    return best, f"auto: by costs measured on this machine ({', '.join([*timings, *unable])})"


@cache
def costs(workload: Workload) -> dict[str, Cost]:
    """The costs of each backend that can run, from the file or measured now."""
    file, key = cache_folder() / "costs.json", str(workload)
    by_workload = _read(file)
    if key not in by_workload:
        by_workload[key] = _measure(workload)
        with suppress(OSError):  # where it cannot be written, every process measures
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(by_workload, indent=1) + "\n")
    return {name: Cost(*numbers) for name, numbers in by_workload[key].items()}


def _read(file: Path) -> dict[str, dict[str, list[float]]]:
    """The content of the file; a missing or damaged one counts as empty."""
    try:
        by_workload = json.loads(file.read_text(encoding="utf-8"))
        for by_name in by_workload.values():
            for overhead, slope in by_name.values():
                float(overhead), float(slope)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return dict(by_workload)


@cache
def _machine(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} {processor()}, torch {torch.__version__}"


def processor() -> str:
    """What the system says of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    fields = ("vendor_id", "cpu family", "model", "model name")
    values = dict(line.split(":", 1) for line in lines[:40] if ":" in line)
    return " ".join(v.strip() for k, v in values.items() if k.strip() in fields)


def _measure(workload: Workload) -> dict[str, list[float]]:
    """Times each backend at two lengths and draws a line through them."""
    by_name: dict[str, list[float]] = {}
    for name, lengths in _LENGTHS[workload.device].items():
        calls = [_example(length, workload) for length in lengths]
        if any(backend(name).reasons(call) for call in calls):
            continue
        try:
            (few, short), (many, long) = [
                (backend(name).work(call.rule), _seconds(name, call, workload)) for call in calls
            ]
        except BackendError:
            continue
        slope = max(long - short, 0.05 * long) / (many - few)
        by_name[name] = [max(0.0, short - slope * few), slope]
    return by_name


def _example(length: int, workload: Workload) -> Call:
    device = torch.device(workload.device)
    valid = torch.ones(_BATCH, length, dtype=torch.bool, device=device)
    rule = LayerRule(((tuple(range(_HEADS)), Rule((Band(32),))),), _HEADS, valid, padded=False)
    shape = (_BATCH, length, _HEADS, _WIDTH)
    states = [torch.ones(shape, dtype=workload.dtype, device=device) for _ in range(3)]
    q, k, v = (x.requires_grad_(workload.trains).transpose(1, 2) for x in states)
    return Call(q, k, v, rule, 0.125, 0.1 if workload.drops else 0.0)


def _seconds(name: str, call: Call, workload: Workload) -> float:
    """The shortest of some runs: noise only ever adds."""
    chosen, threads = backend(name), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(workload.trains):
            return min(_timed(lambda: chosen.attend(call), workload) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def _timed(run: Callable[[], Tensor], workload: Workload) -> float:
    on_gpu = workload.device == "cuda"
    clock: Callable[[], float] = perf_counter if on_gpu else thread_time
    wait: Callable[[], object] = torch.cuda.synchronize if on_gpu else int
    wait()
    start = clock()
    out = run()
    if workload.trains:
        torch.autograd.backward(out.sum())
    wait()
    return clock() - start
