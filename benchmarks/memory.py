"""Peak extra memory of attention, forward and backward: tiled against masked SDPA.

Each figure comes from a process of its own. It runs the backend on a short text, creates the inputs
and the gradient of the output, resets the kernel's record of peak memory, runs one forward and
backward pass, and reads the record: what the pass added, its results (the context and three
gradients) and the plan's lists or mask included. Freed memory goes back to the system at once
(`MALLOC_MMAP_THRESHOLD_`). The measurement is checked first, on tensors of known sizes. Outputs and
gradients are compared with the definition at every length. Linux only.

    python benchmarks/memory.py [--quick] [--length 8192] [--threads 2] [--again]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from statistics import linear_regression
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from calls import HEADS, SCORE_BYTES, WIDTH, Attend, check, make_call
from shared import AT_ONCE, Record, added, alone, options, parse
from sparseattn.backend import Call, backend

COLUMNS = (
    *("extra memory", "of", "tiled", "ratio", "target"),
    *("ratio beyond results", "difference from reference"),
)
PLAN = "neighbor(radius=32) | global(cls)"
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
#: How far off a known amount may be measured, as a share of it.
TOLERANCE = 0.03


# --- in the process that is measured


def sdpa(call: Call) -> Tensor:
    """SDPA with a mask that is there already: the least that masked attention can take."""
    states = call.query, call.key, call.value
    return scaled_dot_product_attention(*states, call.rule.finite, call.dropout, scale=call.scale)


def peak(name: str, length: int, dropout: float) -> int:
    """Bytes that one forward and backward pass adds to this process."""
    attend = sdpa if name == "sdpa" else backend(name).attend
    _pass(attend, replace(make_call(64, PLAN, 1), dropout=dropout))
    call = replace(make_call(length, PLAN, 1), dropout=dropout)
    if name == "sdpa":
        _ = call.rule.finite
    for tensor in (call.query, call.key, call.value):
        tensor.requires_grad_()
    grad = torch.linspace(-1, 1, call.query.numel()).view(1, length, HEADS, WIDTH).transpose(1, 2)
    return added(lambda: _pass(attend, call, grad))


def _pass(attend: Attend, call: Call, grad: Tensor | None = None) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in (call.query, call.key, call.value)]
    out = attend(call)
    return [out, *torch.autograd.grad(out, leaves, torch.ones_like(out) if grad is None else grad)]


def known_tensors() -> float:
    """Measures a run that has two of three tensors at a time: what is measured, per true amount."""

    def run(numbers: int = 1 << 24) -> Tensor:
        first = torch.ones(numbers)
        second = first + 1
        del first
        return second * 2

    run(1024)
    return added(run) / (2 * 4 * (1 << 24))


# --- in the process that starts those


def measured(threads: int, *inside: object) -> float:
    """The number that a process of this script prints."""
    environment = {**AT_ONCE, "OMP_NUM_THREADS": str(threads)}
    return float(alone([__file__, "--inside", *inside], environment))


def megabytes(name: str, length: int, dropout: float, threads: int) -> float:
    return measured(threads, name, length, dropout) / 2**20


def difference(length: int) -> float:
    """The largest difference from the definition, without dropout."""
    return check("tiled", backend("tiled").attend, make_call(length, PLAN, 1))


def compare(length: int, dropout: float, threads: int) -> dict[str, Any]:
    """Tiled against masked attention, as the backend does it and at its least."""
    worst = difference(length)
    if dropout and HEADS * length**2 * SCORE_BYTES > 0.8 * psutil.virtual_memory().available:
        sys.exit(f"SDPA with dropout would not fit in memory at {length} tokens")
    results = 4 * HEADS * length * WIDTH * 4 / 2**20
    names = {"masked": "backend masked", "sdpa": "SDPA, its mask given"}
    sizes = {name: megabytes(name, length, dropout, threads) for name in ("tiled", *names)}
    tiled, rows = sizes["tiled"], []
    for name, text in names.items():
        cells = [
            f"forward + backward, dropout {dropout:g}, {length} tokens",
            f"{text}: {sizes[name]:.0f} MB",
            f"{tiled:.0f} MB, of which {results:.0f} MB results",
            f"{sizes[name] / tiled:.1f}x less",
            ">= 10x",
            f"{(sizes[name] - results) / max(tiled - results, 1):.1f}x",
        ]
        rows.append([*cells, f"{worst:.0e}"])
    return {"rows": rows, "megabytes": sizes}


def growth(lengths: tuple[int, ...], threads: int) -> dict[str, Any]:
    """The line through the memory of growing lengths."""
    worst = max(map(difference, lengths))
    sizes = {n: megabytes("tiled", n, 0.0, threads) for n in lengths}
    xs, ys = list(sizes), list(sizes.values())
    by, start = linear_regression(xs, ys)
    off = max(abs(start + by * x - y) / y for x, y in sizes.items())
    cells = [
        f"forward + backward, {' / '.join(map(str, xs))} tokens",
        f"a line: {start:.1f} MB + {1024 * by:.2f} MB for 1024 tokens, at most {off:.0%} off",
        f"{' / '.join(f'{mb:.1f}' for mb in ys)} MB",
        f"{ys[-1] / ys[0]:.1f}x for {xs[-1] // xs[0]}x the tokens",
        *("linear", "-", f"{worst:.0e}"),
    ]
    return {"rows": [cells], "megabytes": sizes}


def check_measurement(threads: int) -> dict[str, Any]:
    """Measures tensors of a known size."""
    share = measured(threads, "known")
    if abs(share - 1) > TOLERANCE:
        sys.exit(f"128 MB of known tensors were measured as {share:.1%} of that")
    return {"rows": [["tensors of 128 MB", "-", f"{128 * share:.1f} MB", "-", "-", "-", "-"]]}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--length", type=int, default=8192, help="tokens of the comparison")
    parser.add_argument("--threads", type=int, help="all by default; one with --busy")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    args = parse(parser)
    threads = args.threads or torch.get_num_threads()
    if args.inside:
        what, *more = args.inside
        print(known_tensors() if what == "known" else peak(what, int(more[0]), float(more[1])))
        return
    setting = f"12 heads x 64, float32, {PLAN.replace('|', 'and')}, {threads} threads"
    record = Record("memory", COLUMNS, setting, args)
    record.part("measurement", partial(check_measurement, threads))
    record.done()  # without a right measurement nothing else is run
    length = 1024 if args.quick else args.length
    for dropout in (0.0, 0.1):
        record.part(f"dropout-{dropout:g}", partial(compare, length, dropout, threads))
    record.part("growth", partial(growth, LENGTHS[:4] if args.quick else LENGTHS, threads))
    record.done()


if __name__ == "__main__":
    main()
