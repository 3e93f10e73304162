"""What sparse attention costs on this machine: the first table of docs/benchmarks.md.

Every time follows a comparison of outputs and gradients with the `reference` backend in the same
process; a difference ends its part. Times are medians of runs that take turns. With `--busy` they
are processor times of one thread, for machines that others use too. Results go to
benchmarks/results/attention.json and .md.

    python benchmarks/attention.py [--busy] [--only NAME ...] [--quick] [--again]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import sparseattn as sa
from record import FOLDER, Record, clock
from sparseattn.backends.base import Call, backend
from sparseattn.bench.timing import alternate

HEADS, WIDTH = 12, 64
COLUMNS = ("what", "against", "sparse", "ratio", "target", "difference from reference")
REPEATS = 5
BUSY = False
#: Longest text of a quick run.
QUICK = 1024


def call(length: int, plan: object, texts: int | None = None, heads: int = HEADS) -> Call:
    """An attention over `4096 / length` texts (or as many as asked for), laid out as in BERT."""
    texts = texts or max(1, 4096 // length)
    tokens = sa.TokenBatch.of_lengths(*[length] * texts)
    rule = sa.Plan.of(plan).compile(tokens, [heads]).layers[0]
    generator = torch.Generator().manual_seed(0)
    shape = (texts, length, heads, WIDTH)
    q, k, v = (torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(3))
    return Call(q, k, v, rule, WIDTH**-0.5)


def results(name: str, one: Call) -> list[torch.Tensor]:
    leaves = q, k, v = [
        x.detach().clone().requires_grad_() for x in (one.query, one.key, one.value)
    ]
    out = backend(name).attend(replace(one, query=q, key=k, value=v))
    grad = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


def check(length: int, plan: object, heads: int = 2) -> float:
    """The largest difference from the definition, over outputs and gradients."""
    one = call(length, plan, texts=1, heads=heads)
    pairs = zip(results("tiled", one), results("reference", one), strict=True)
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    if not worst < 1e-4:
        sys.exit(f"tiled differs from reference by {worst:.2g} at {length} tokens, {plan}")
    return worst


def timed(runs: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    return alternate(runs, repeats, busy=BUSY)


def attend(name: str, one: Call, trains: bool) -> Callable[[], object]:
    """Attention alone, and its gradients for a gradient of the context that is there already."""
    leaves = [x.detach().requires_grad_(trains) for x in (one.query, one.key, one.value)]
    grad = torch.linspace(-1, 1, one.query.numel()).view_as(one.query.transpose(1, 2))
    grad = grad.transpose(1, 2)

    def run() -> object:
        q, k, v = leaves
        with torch.set_grad_enabled(trains):
            if name == "dense":
                out = scaled_dot_product_attention(q, k, v, dropout_p=one.dropout)
            else:
                out = backend(name).attend(replace(one, query=q, key=k, value=v))
            return torch.autograd.grad(out, leaves, grad) if trains else out

    return run


def row(
    what: str, against: str, seconds: float, ratio: str, target: str, worst: float
) -> dict[str, Any]:
    """What a part found, and its line."""
    return {"rows": [[what, against, f"{1e3 * seconds:.1f} ms", ratio, target, f"{worst:.0e}"]]}


def work(trains: bool) -> str:
    return "forward + backward" if trains else "inference"


def compare(length: int, radius: int, trains: bool, target: float) -> dict[str, Any]:
    """One radius against dense SDPA."""
    plan = f"neighbor(radius={radius})"
    worst = check(length, plan)
    one = call(length, plan)
    with torch.no_grad():
        backend("tiled").attend(one)
    t = timed({name: attend(name, one, trains) for name in ("dense", "tiled")})
    ratio, dense = t["dense"] / t["tiled"], f"dense {1e3 * t['dense']:.1f} ms"
    what = f"{work(trains)}, radius {radius}, {length} tokens"
    return row(what, dense, t["tiled"], f"{ratio:.1f}x", f">= {target:g}x", worst) | {"times": t}


def flex(length: int) -> dict[str, Any]:
    """Compiled FlexAttention with blocks of 32, inference at radius 32."""
    plan = "neighbor(radius=32)"
    one = call(length, plan)
    if reasons := backend("flex").reasons(one):
        sys.exit(f"flex cannot run: {'; '.join(reasons)}")
    worst = check(length, plan)
    with torch.no_grad():
        worst = max(worst, _apart(one, "flex", "tiled"))
    t = timed({name: attend(name, one, False) for name in ("flex", "tiled")})
    ratio, theirs = t["flex"] / t["tiled"], f"flex {1e3 * t['flex']:.1f} ms"
    what = f"inference, radius 32, {length} tokens"
    return row(what, theirs, t["tiled"], f"{ratio:.2f}x", ">= 0.9x", worst) | {"times": t}


def _apart(one: Call, *names: str) -> float:
    """The largest difference between two backends' contexts."""
    ours, theirs = (backend(name).attend(one) for name in names)
    worst = float((ours - theirs).abs().max())
    if not worst < 1e-4:
        sys.exit(f"{names[0]} differs from {names[1]} by {worst:.2g} at {one.rule.length} tokens")
    return worst


#: Radii of learned plans: one for each head, and one for each token, drawn from a distribution.
LEARNED = {
    "mixed radii": {
        0: {
            str(head): f"neighbor(radius={r})"
            for head, r in enumerate((0, 4, 8, 8, 16, 16, 32, 32, 48, 64, 96, 128))
        }
    },
    "irregular radii": "irregular(radii=[0, 4, 16, 64], weights=[0.4, 0.3, 0.2, 0.1])",
}


def mixed(what: str, length: int, trains: bool) -> dict[str, Any]:
    """Learned radii against one radius for all with the same number of score entries."""
    tiled = backend("tiled")
    worst = check(min(length, 2048), LEARNED[what], HEADS)
    learned = call(length, LEARNED[what], 1)
    # Windows that end between tiles as well: computed entries grow by steps of a key a tile.
    uniform = min(
        (call(length, f"neighbor(radius={r})", 1) for r in range(0, 160)),
        key=lambda c: abs(tiled.computed(c.rule) - tiled.computed(learned.rule)),
    )
    density, same = (tiled.computed(c.rule) / (HEADS * length**2) for c in (learned, uniform))
    calls = {"learned": learned, "uniform": uniform}
    t = timed({name: attend("tiled", c, trains) for name, c in calls.items()})
    said = f"{work(trains)}, {what}, {length} tokens, block density {density:.2%}"
    against = f"uniform, {same:.2%}: {1e3 * t['uniform']:.1f} ms"
    ratio = f"{t['uniform'] / t['learned']:.2f}x"
    return row(said, against, t["learned"], ratio, ">= 0.7x", worst) | {"times": t}


def growth(lengths: tuple[int, ...], trains: bool) -> dict[str, Any]:
    """The exponent of time over length at a fixed radius; lengths take turns."""
    plan = "neighbor(radius=32) | global(cls)"
    worst = max(check(length, plan) for length in lengths if length <= 4096)
    runs = {str(n): attend("tiled", call(n, plan, 1), trains) for n in lengths}
    t = timed(runs, 3 * REPEATS)
    exponent = slope([(math.log(n), math.log(t[str(n)])) for n in lengths])
    what = f"{work(trains)}, radius 32 + cls, {lengths[0]} to {lengths[-1]} tokens"
    times = " / ".join(f"{1e3 * seconds:.1f}" for seconds in t.values())
    cells = [what, "exponent of time", f"{times} ms", f"{exponent:.3f}", "<= 1.1", f"{worst:.0e}"]
    return {"rows": [cells], "times": t, "exponent": exponent}


def slope(points: list[tuple[float, float]]) -> float:
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x in xs)


def parts(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The parts by name."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for length, target in ((512, 4), (1024, 8), (4096, 20), (8192, 40)):
        made[f"inference-{length}"] = partial(compare, length, 32, False, target)
    for length, target in ((512, 2), (1024, 6), (2048, 12)):
        made[f"training-{length}"] = partial(compare, length, 16, True, target)
    for what in LEARNED:
        for trains in (False, True):
            name = f"{what.split()[0]}-{'training' if trains else 'inference'}"
            made[name] = partial(mixed, what, QUICK if quick else 4096, trains)
    lengths = (QUICK // 2, QUICK) if quick else (2048, 4096, 8192, 16384, 32768)
    for trains in (False, True):
        made[f"growth-{'training' if trains else 'inference'}"] = partial(growth, lengths, trains)
    for length in (512, 1024, 4096):
        made[f"flex-{length}"] = partial(flex, length)
    if not quick:
        return made
    return {
        n: p
        for n, p in made.items()
        if not n.split("-")[1].isdigit() or int(n.split("-")[1]) <= QUICK
    }


def main() -> None:
    global BUSY
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--quick", action="store_true", help=f"at most {QUICK} tokens")
    parser.add_argument("--again", action="store_true", help="run parts that the file holds too")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="parts, or how their names begin")
    given = parser.parse_args()
    BUSY = given.busy
    if BUSY:
        torch.set_num_threads(1)
    chosen = {
        name: make
        for name, make in parts(given.quick).items()
        if given.only is None or name.startswith(tuple(given.only))
    }
    if not chosen:
        parser.error(f"--only: none of {', '.join(parts(given.quick))} begins so")
    how = f"12 heads x 64, float32, {clock(BUSY)}{', quick' if given.quick else ''}"
    record = Record("attention", COLUMNS, how, given.out, given.again)
    for name, make in chosen.items():
        record.part(name, make)
    record.done()


if __name__ == "__main__":
    main()
