"""Peak extra memory of attention, forward and backward: tiled against masked SDPA.

Each figure comes from a process of its own. It warms the backend up on a short text, makes the
inputs and the gradient of the output, resets the kernel's record of the most memory that was
resident, runs one forward and backward pass, and reads the record: what the pass added to what
stood before, its results (the context and three gradients) and the plan's lists or mask included.
Freed memory goes back to the system at once (`MALLOC_MMAP_THRESHOLD_`), so that nothing hides in
what an earlier step left behind. The ruler is checked first, on tensors of known sizes; outputs and
gradients are compared with `reference` before anything is measured. Linux only.

    python benchmarks/memory.py [--quick] [--length 8192] [--threads 2]
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from attention import HEADS, WIDTH, call, check, slope
from sparseattn.backends.base import Call, backend

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


def attend(name: str) -> Callable[[Call], Tensor]:
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


def _pass(run: Callable[[Call], Tensor], one: Call, seen: Tensor | None = None) -> list[Tensor]:
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


def compared(length: int, threads: int) -> None:
    """The rows against masked attention."""
    results = 4 * HEADS * length * WIDTH * 4 / 2**20
    for dropout in (0.0, 0.1):
        if HEADS * length**2 * KEPT > 0.6 * psutil.virtual_memory().available and dropout:
            print(f"| dropout {dropout:g}, {length} tokens | too little free memory | | | | |")
            continue
        tiled = megabytes("tiled", length, dropout, threads)
        for name, said in (("masked", "backend masked"), ("sdpa", "SDPA, its mask given")):
            other = megabytes(name, length, dropout, threads)
            print(
                f"| dropout {dropout:g}, {length} tokens | {said}: {other:.0f} MB | "
                f"{tiled:.0f} MB, of which {results:.0f} MB results | {other / tiled:.1f}x less | "
                f">= 10x | {(other - results) / max(tiled - results, 1):.1f}x |",
                flush=True,
            )


def grown(lengths: tuple[int, ...], threads: int) -> None:
    """The line through the memory of growing lengths."""
    found = {n: megabytes("tiled", n, 0.0, threads) for n in lengths}
    xs, ys = list(found), list(found.values())
    by = slope(list(zip(xs, ys, strict=True)))
    start = sum(ys) / len(ys) - by * sum(xs) / len(xs)
    off = max(abs(start + by * x - y) / y for x, y in found.items())
    print("\n| tokens | " + " | ".join(map(str, found)) + " |")
    print("| --- |" + " --- |" * len(found))
    print("| extra memory, MB | " + " | ".join(f"{mb:.1f}" for mb in ys) + " |")
    print(
        f"\nline: {start:.1f} MB + {1024 * by:.2f} MB for 1024 tokens; at most {off:.0%} off, "
        f"and {ys[-1] / ys[0]:.1f} times the memory for {xs[-1] // xs[0]} times the tokens"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=8192, help="tokens of the comparison")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="1024 tokens; the line up to 8192")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        what, *more = given.inside
        print(known() if what == "known" else peak(what, int(more[0]), float(more[1])))
        return
    found = measured("known", threads=given.threads)
    if abs(found - 1) > EXACT:
        sys.exit(f"not measured: 128 MB of known tensors were found to be {found:.1%} of that")
    worst = check(2048, PLAN)
    print(f"12 heads x 64, float32, {PLAN}; known tensors measured as {found:.1%} of their size;")
    print(f"outputs and gradients of tiled at most {worst:.0e} away from reference\n")
    print("| extra memory, forward + backward | of | tiled | ratio | target | beyond results |")
    print("| --- | --- | --- | --- | --- | --- |")
    compared(1024 if given.quick else given.length, given.threads)
    grown(LENGTHS[:4] if given.quick else LENGTHS, given.threads)


if __name__ == "__main__":
    main()
