"""Peak extra memory of attention, forward and backward: tiled against masked SDPA.

Each figure comes from a process of its own. It warms the backend up on a short text, makes the
inputs and the gradient of the output, resets the kernel's record of the most memory that was
resident, runs one forward and backward pass, and reads the record: what the pass added to what
stood before, its results (the context and three gradients) and the plan's lists or mask included.
Freed memory goes back to the system at once (`MALLOC_MMAP_THRESHOLD_`), so that nothing hides in
what an earlier step left behind. The ruler is checked first, on tensors of known sizes. Outputs and
gradients without dropout are compared with the definition (definition.py) at every length before it
is measured. Linux only. Results go to benchmarks/results/memory.json and .md.

    python benchmarks/memory.py [--quick] [--length 8192] [--threads 2] [--again]
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from attention import slope
from calls import HEADS, WIDTH, Way, call
from definition import check
from options import options, prepare
from record import Record
from sparseattn.backend import Call, backend

COLUMNS = (
    *("extra memory", "of", "tiled", "ratio", "target"),
    *("ratio beyond results", "difference from reference"),
)
#: What is measured, in words.
SAID = {"tiled": "", "masked": "backend masked", "sdpa": "SDPA, its mask given"}
PLAN = "neighbor(radius=32) | global(cls)"
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
#: How far off a known amount may be measured, as a share of it.
EXACT = 0.03
#: Bytes that SDPA keeps for each score when it drops weights in training (measured).
KEPT = 12.5


# --- in the process that is measured


def sdpa(one: Call) -> Tensor:
    """SDPA with a mask that is there already: the least that masked attention can take."""
    mask = one.rule.finite
    return scaled_dot_product_attention(
        one.query, one.key, one.value, mask, one.dropout, scale=one.scale
    )


def attend(name: str) -> Way:
    """A way to compute attention: a backend, or `sdpa`."""
    return sdpa if name == "sdpa" else backend(name).attend


def peak(name: str, length: int, dropout: float) -> int:
    """Bytes that one forward and backward pass adds to this process."""
    run = attend(name)
    _pass(run, replace(call(64, PLAN, 1), dropout=dropout))
    one = replace(call(length, PLAN, 1), dropout=dropout)
    if name == "sdpa":
        _ = one.rule.finite
    for tensor in (one.query, one.key, one.value):
        tensor.requires_grad_()
    seen = torch.linspace(-1, 1, one.query.numel()).view(1, length, HEADS, WIDTH).transpose(1, 2)
    return added(lambda: _pass(run, one, seen))


def _pass(run: Way, one: Call, seen: Tensor | None = None) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in (one.query, one.key, one.value)]
    out = run(one)
    return [out, *torch.autograd.grad(out, leaves, torch.ones_like(out) if seen is None else seen)]


def added(run: Callable[[], object]) -> int:
    """Bytes by which the most memory that was resident during a run exceeds what was before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    kept = run()
    most = _status("VmHWM")
    del kept
    return most - before


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024


def known() -> float:
    """Measures a run that has two of three tensors at a time: what is found, per true amount."""
    numbers = 1 << 24

    def run(numbers: int = numbers) -> Tensor:
        first = torch.ones(numbers)
        second = first + 1
        del first
        return second * 2

    run(1024)
    return added(run) / (2 * 4 * numbers)


# --- in the process that asks


def measured(what: str, *more: str, threads: int) -> float:
    """What a process of this script prints."""
    command = [sys.executable, __file__, "--inside", what, *more]
    settings = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": str(threads),
    }
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **settings}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def megabytes(name: str, length: int, dropout: float, threads: int) -> float:
    return measured(name, str(length), str(dropout), threads=threads) / 2**20


def checked(length: int) -> float:
    """The largest difference from the definition, without dropout."""
    return check("tiled", attend("tiled"), call(length, PLAN, 1))


def compared(length: int, dropout: float, threads: int) -> dict[str, Any]:
    """Tiled against masked attention, as the backend does it and at its least."""
    results = 4 * HEADS * length * WIDTH * 4 / 2**20
    worst = checked(length)
    if dropout and HEADS * length**2 * KEPT > 0.8 * psutil.virtual_memory().available:
        sys.exit(f"SDPA with dropout would not fit in memory at {length} tokens")
    found = {name: megabytes(name, length, dropout, threads) for name in SAID}
    tiled, rows = found["tiled"], []
    for name, said in SAID.items():
        if name == "tiled":
            continue
        other = found[name]
        beyond = (other - results) / max(tiled - results, 1)
        ours = f"{tiled:.0f} MB, of which {results:.0f} MB results"
        what = f"forward + backward, dropout {dropout:g}, {length} tokens"
        theirs = f"{said}: {other:.0f} MB"
        cells = [what, theirs, ours, f"{other / tiled:.1f}x less", ">= 10x", f"{beyond:.1f}x"]
        rows.append([*cells, f"{worst:.0e}"])
    return {"rows": rows, "megabytes": found}


def grown(lengths: tuple[int, ...], threads: int) -> dict[str, Any]:
    """The line through the memory of growing lengths."""
    worst = max(map(checked, lengths))
    found = {n: megabytes("tiled", n, 0.0, threads) for n in lengths}
    xs, ys = list(found), list(found.values())
    by = slope(list(zip(xs, ys, strict=True)))
    start = sum(ys) / len(ys) - by * sum(xs) / len(xs)
    off = max(abs(start + by * x - y) / y for x, y in found.items())
    line = f"{start:.1f} MB + {1024 * by:.2f} MB for 1024 tokens, at most {off:.0%} off"
    ours = f"{' / '.join(f'{mb:.1f}' for mb in ys)} MB"
    growth = f"{ys[-1] / ys[0]:.1f}x for {xs[-1] // xs[0]}x the tokens"
    what = f"forward + backward, {' / '.join(map(str, xs))} tokens"
    cells = [what, f"a line: {line}", ours, growth, "linear", "-", f"{worst:.0e}"]
    return {"rows": [cells], "megabytes": found}


def known_well(threads: int) -> dict[str, Any]:
    """The ruler, on tensors of a known size."""
    found = measured("known", threads=threads)
    if abs(found - 1) > EXACT:
        sys.exit(f"128 MB of known tensors were found to be {found:.1%} of that")
    return {"rows": [["tensors of 128 MB", "-", f"{128 * found:.1f} MB", "-", "-", "-", "-"]]}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--length", type=int, default=8192, help="tokens of the comparison")
    parser.add_argument("--threads", type=int, help="all by default; one with --busy")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    prepare(given)
    given.threads = given.threads or torch.get_num_threads()
    if given.inside:
        what, *more = given.inside
        print(known() if what == "known" else peak(what, int(more[0]), float(more[1])))
        return
    quick = ", quick" if given.quick else ""
    how = f"12 heads x 64, float32, {PLAN.replace('|', 'and')}, {given.threads} threads{quick}"
    record = Record("memory", COLUMNS, how, given.out, given.again)
    # Without a ruler that is right nothing is measured.
    record.part("ruler", partial(known_well, given.threads))
    record.done()
    length = 1024 if given.quick else given.length
    for dropout in (0.0, 0.1):
        record.part(f"dropout-{dropout:g}", partial(compared, length, dropout, given.threads))
    record.part("growth", partial(grown, LENGTHS[:4] if given.quick else LENGTHS, given.threads))
    record.done()


if __name__ == "__main__":
    main()
