"""What `auto` picks: the backend that should be fastest on this machine, by measured costs.

The time of a backend is taken as `overhead + slope * score entries / threads`. Overhead and slope
are measured once for each device and type, and for inference, training and dropout, in some tenths
of a second, and kept in a file. On a CPU they are processor times of one thread: a busy machine
does not change those. A decision is kept with its rule, so that asking again costs a look-up.
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
from sparseattn.errors import BackendError
from sparseattn.files import cache_folder, write_whole
from sparseattn.rules import Band, LayerRule, Rule

__all__ = ["SHORT", "Line", "Situation", "choose", "lines", "select"]

#: Up to this length `masked` is taken unmeasured: there is little to save and lists cost time too.
SHORT = 128
#: The backend that takes every call.
FIRST = "masked"
#: Texts x heads and lengths that each backend is measured at. A GPU takes as long for little as for
#: nothing, so that there a line through short lengths says nothing of long ones.
_BATCH, _HEADS, _WIDTH = 1, 4, 64
_LENGTHS = {
    "cpu": {"masked": (128, 512), "tiled": (256, 2048)},
    "cuda": {"masked": (512, 4096), "tiled": (2048, 16384), "flex": (1024, 16384)},
}
#: Backends to choose from.
CANDIDATES = {device: tuple(lengths) for device, lengths in _LENGTHS.items()}
#: Largest L x L for which lists are made only to learn what they would cost.
_WORTH_ASKING = 1024

#: What was decided for a rule, by situation, threads and whether there is a bias.
_CHOSEN: WeakKeyDictionary[LayerRule, dict[Any, tuple[str, str]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Line:
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
class Situation:
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
    def of(cls, call: Call) -> Situation:
        """The situation of a call."""
        query = call.query
        return cls(query.device.type, query.dtype, call.trains, call.dropout > 0)

    def __str__(self) -> str:
        """The situation as a key of the file."""
        dtype = str(self.dtype).removeprefix("torch.")
        work = ("training" if self.trains else "inference") + (
            " with dropout" if self.drops else ""
        )
        return f"{_machine(self.device)}{self._without}, {dtype}, {work}"

    @property
    def _without(self) -> str:
        """What tells the costs of a machine on which the kernel is missing."""
        if self.device != "cpu" or self.dtype not in DTYPES:
            return ""
        return ", no kernel" if missing(self.dtype, self.trains) else ""


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
        return backend(FIRST), f"auto: at most {SHORT} tokens, where sparsity saves nothing"
    situation = Situation.of(call)
    threads = torch.get_num_threads() if situation.device == "cpu" else 1
    key = (situation, threads, call.bias is None)
    chosen = _CHOSEN.setdefault(call.rule, {})
    if key not in chosen:
        chosen[key] = _decide(call, situation, threads)
    name, reason = chosen[key]
    return backend(name), reason


def _decide(call: Call, situation: Situation, threads: int) -> tuple[str, str]:
    names = CANDIDATES.get(situation.device, (FIRST,))
    problems = {name: "; ".join(backend(name).reasons(call)) for name in names[1:]}
    able = [name for name, problem in problems.items() if not problem]
    unable = [f"{name} cannot: {problem}" for name, problem in problems.items() if problem]
    if not able:
        return FIRST, f"auto: the only backend that can ({', '.join(unable)})"
    if call.rule.is_full:
        return FIRST, "auto: every pair is allowed"
    if call.rule.length < _WORTH_ASKING and not _structured(call.rule):
        return FIRST, f"auto: no structure to use at less than {_WORTH_ASKING} tokens"
    cost = lines(situation)
    # Measuring runs a backend, which may show that it cannot: flex tests itself at its first use.
    unable += [f"{name} could not be measured" for name in able if name not in cost]
    width = call.query.shape[-1]
    times = {
        name: cost[name].seconds(backend(name).computed(call.rule), width, threads)
        for name in (FIRST, *able)
        if name in cost
    }
    best = min(times, key=lambda name: times[name])
    timings = [f"{name} {1000 * seconds:.3g} ms" for name, seconds in times.items()]
    return best, f"auto: by costs measured on this machine ({', '.join([*timings, *unable])})"


def _structured(rule: LayerRule) -> bool:
    """Whether the lists of a rule come from arithmetic rather than from asking for every pair."""
    from sparseattn.backends.kernels.tiles.bands import banded

    return all(banded(shared) is not None for _, shared in rule.groups)


@cache
def lines(situation: Situation) -> dict[str, Line]:
    """The costs of each backend that can run, from the file or measured now."""
    file = _file()
    costs_by_key = _read(file)
    key = str(situation)
    if key not in costs_by_key:
        costs_by_key[key] = _measured(situation)
        _write(file, costs_by_key)
    return {name: Line(*numbers) for name, numbers in costs_by_key[key].items()}


def _file() -> Path:
    return cache_folder() / "costs.json"


@cache
def _machine(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} {_processor()}, torch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    fields = ("vendor_id", "cpu family", "model", "model name")
    values = dict(line.split(":", 1) for line in lines[:40] if ":" in line)
    return " ".join(v.strip() for k, v in values.items() if k.strip() in fields)


def _read(file: Path) -> dict[str, dict[str, list[float]]]:
    """What the file holds; a missing or damaged one counts as empty."""
    try:
        costs_by_key = json.loads(file.read_text(encoding="utf-8"))
        for costs in costs_by_key.values():
            for overhead, slope in costs.values():
                float(overhead), float(slope)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return dict(costs_by_key)


def _write(file: Path, costs_by_key: dict[str, dict[str, list[float]]]) -> None:
    """Replaces the file; where none can be written, costs are measured in every process."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(costs_by_key, indent=1) + "\n")


def _measured(situation: Situation) -> dict[str, list[float]]:
    """Times each backend at two lengths and draws a line through them."""
    values: dict[str, list[float]] = {}
    for name in CANDIDATES[situation.device]:
        calls = [_example(length, situation) for length in _LENGTHS[situation.device][name]]
        if any(backend(name).reasons(call) for call in calls):
            continue
        try:
            (few, short), (many, long) = [
                (backend(name).computed(call.rule), _seconds(name, call, situation))
                for call in calls
            ]
        except BackendError:
            continue
        slope = max(long - short, 0.05 * long) / (many - few)
        values[name] = [max(0.0, short - slope * few), slope]
    return values


def _example(length: int, situation: Situation) -> Call:
    device = torch.device(situation.device)
    valid = torch.ones(_BATCH, length, dtype=torch.bool, device=device)
    rule = LayerRule(((tuple(range(_HEADS)), Rule((Band(32),))),), _HEADS, valid, padded=False)
    shape = (_BATCH, length, _HEADS, _WIDTH)
    states = [torch.ones(shape, dtype=situation.dtype, device=device) for _ in range(3)]
    leaves = [x.requires_grad_(situation.trains).transpose(1, 2) for x in states]
    q, k, v = leaves
    return Call(q, k, v, rule, 0.125, 0.1 if situation.drops else 0.0)


def _seconds(name: str, call: Call, situation: Situation) -> float:
    """The shortest of some runs: noise only ever adds."""
    chosen, threads = backend(name), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(situation.trains):
            return min(_timed(lambda: chosen.attend(call), situation) for _ in range(5))
    finally:
        torch.set_num_threads(threads)


def _timed(run: Callable[[], Tensor], situation: Situation) -> float:
    on_gpu = situation.device == "cuda"
    clock: Callable[[], float] = perf_counter if on_gpu else thread_time
    wait: Callable[[], object] = torch.cuda.synchronize if on_gpu else int
    wait()
    start = clock()
    out = run()
    if situation.trains:
        torch.autograd.backward(out.sum())
    wait()
    return clock() - start
