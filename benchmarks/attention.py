"""What sparse attention costs on this machine: the first table of docs/benchmarks.md.

Whatever is timed was compared with the definition before, at the same length, outputs and gradients
(definition.py); a difference ends its part. Times are medians of runs that take turns. With
`--busy` they are processor times of one thread, for machines that others use too. With `--device
cuda` the backends `flex` and `tiled` run in bfloat16 on a GPU, against SDPA's flash kernel. Results
go to benchmarks/results/attention.json and .md.

    python benchmarks/attention.py [--busy] [--device cuda] [--only NAME ...] [--quick] [--again]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from calls import DENSE, HEADS, Way, call, once, way
from definition import LIMITS, check
from options import options, prepare
from rawflex import raw
from record import Record, clock
from sparseattn.backend import Call, backend
from sparseattn.bench.timing import alternate

COLUMNS = ("what", "against", "sparse", "ratio", "target", "difference from reference")
REPEATS = 5
BUSY = False
#: Longest text of a quick run.
QUICK = 1024
#: On a GPU: the radius, the lengths, the backends, and the share of the ideal ratio to reach.
GPU_RADIUS, GPU_LENGTHS, GPU_BACKENDS, GPU_SHARE = 64, (4096, 8192, 16384), ("flex", "tiled"), 0.5
#: Timed rounds on a GPU, where one takes a millisecond.
GPU_REPEATS = 30


def timed(runs: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    return alternate(runs, repeats, busy=BUSY)


def row(
    what: str, against: str, seconds: float, ratio: str, target: str, worst: float
) -> dict[str, Any]:
    """What a part found, and its line."""
    return {"rows": [[what, against, milliseconds(seconds), ratio, target, f"{worst:.0e}"]]}


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.{1 if seconds > 1e-3 else 3}f} ms"


def work(trains: bool) -> str:
    return "forward + backward" if trains else "inference"


def compare(length: int, radius: int, trains: bool, target: float) -> dict[str, Any]:
    """One radius against dense SDPA."""
    one = call(length, f"neighbor(radius={radius})")
    worst = check("tiled", way("tiled"), one)
    t = timed({name: once(way(name), one, trains) for name in (DENSE, "tiled")})
    ratio, dense = t[DENSE] / t["tiled"], f"dense {milliseconds(t[DENSE])}"
    what = f"{work(trains)}, radius {radius}, {length} tokens"
    return row(what, dense, t["tiled"], f"{ratio:.1f}x", f">= {target:g}x", worst) | {"times": t}


# --- against FlexAttention


def flex(length: int, radius: int = 32) -> dict[str, Any]:
    """The faster of two compiled FlexAttentions, the backend and a user's own, in inference.

    Both have blocks of 32 queries and keys. The user's own is given contiguous states; where it
    fails, the line says why.
    """
    # Both compile the same function, of which PyTorch keeps a few versions only.
    torch.compiler.reset()
    one = call(length, f"neighbor(radius={radius})")
    if reasons := backend("flex").reasons(one):
        sys.exit(f"flex cannot run: {'; '.join(reasons)}")
    worst = max(check("tiled", way("tiled"), one), alike("flex", way("flex"), one))
    runs = {name: once(way(name), one, False) for name in ("flex", "tiled")}
    told = []
    try:
        own = raw(length, radius)
        laid = replace(one, **{n: getattr(one, n).contiguous() for n in ("query", "key", "value")})
        worst = max(worst, alike("FlexAttention", own, laid))
        runs["raw"] = once(own, laid, False)
    except (Exception, SystemExit) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        told.append(f"FlexAttention by itself failed: {why}")
    t = timed(runs)
    names = {"raw": "FlexAttention by itself", "flex": "backend flex"}
    told += [f"{said} {milliseconds(t[name])}" for name, said in names.items() if name in t]
    ratio = min(t[name] for name in names if name in t) / t["tiled"]
    what = f"inference, radius {radius}, {length} tokens"
    return row(what, ", ".join(told), t["tiled"], f"{ratio:.2f}x", ">= 0.9x", worst) | {"times": t}


def alike(name: str, attend: Way, one: Call) -> float:
    """Compares contexts with the definition, and all rows with those of `tiled`."""
    worst = check(name, attend, one, gradients=False)
    with torch.no_grad():
        apart = float((attend(one) - way("tiled")(one)).abs().max())
    if not apart < LIMITS[one.query.dtype]:
        sys.exit(f"{name} differs from tiled by {apart:.2g} at {one.rule.length} tokens")
    return max(worst, apart)


# --- learned radii

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
    learned = call(length, LEARNED[what], 1)
    # Windows that end between tiles as well: computed entries grow by steps of a key a tile.
    uniform = min(
        (call(length, f"neighbor(radius={r})", 1) for r in range(0, 160)),
        key=lambda c: abs(tiled.computed(c.rule) - tiled.computed(learned.rule)),
    )
    calls = {"learned": learned, "uniform": uniform}
    worst = max(check(f"tiled ({name})", tiled.attend, c) for name, c in calls.items())
    density, same = (tiled.computed(c.rule) / (HEADS * length**2) for c in calls.values())
    t = timed({name: once(tiled.attend, c, trains) for name, c in calls.items()})
    said = f"{work(trains)}, {what}, {length} tokens, block density {density:.2%}"
    against = f"uniform, {same:.2%}: {milliseconds(t['uniform'])}"
    ratio = f"{t['uniform'] / t['learned']:.2f}x"
    return row(said, against, t["learned"], ratio, ">= 0.7x", worst) | {"times": t}


# --- growth with the length


def growth(lengths: tuple[int, ...], trains: bool) -> dict[str, Any]:
    """The exponent of time over length at a fixed radius; lengths take turns."""
    calls = {n: call(n, "neighbor(radius=32) | global(cls)", 1) for n in lengths}
    worst = max(check("tiled", way("tiled"), one) for one in calls.values())
    t = timed({str(n): once(way("tiled"), one, trains) for n, one in calls.items()}, 3 * REPEATS)
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


# --- on a GPU


def on_gpu(name: str, length: int, trains: bool, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A backend against dense SDPA with its flash kernel.

    The ideal ratio is that of the score entries: all of them over those that the backend computes.
    """
    one = call(length, f"neighbor(radius={GPU_RADIUS})", device="cuda", dtype=dtype)
    if reasons := backend(name).reasons(one):
        sys.exit(f"{name} cannot run: {'; '.join(reasons)}")
    worst = check(name, way(name), one)
    t = timed({n: once(way(n), one, trains) for n in (DENSE, name)}, GPU_REPEATS)
    ratio = t[DENSE] / t[name]
    ideal = len(one.query) * HEADS * length**2 / backend(name).computed(one.rule)
    what = f"{work(trains)}, {name}, radius {GPU_RADIUS}, {length} tokens"
    said = f"{ratio:.1f}x, {ratio / ideal:.0%} of the ideal {ideal:.1f}x"
    target = f">= {GPU_SHARE:.0%} of the ideal"
    found = row(what, f"flash {milliseconds(t[DENSE])}", t[name], said, target, worst)
    return found | {"times": t, "ratio": ratio, "ideal": ideal}


# --- all parts


def parts(quick: bool, device: str = "cpu") -> dict[str, Callable[[], dict[str, Any]]]:
    """The parts by name."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    if device == "cuda":
        for length in (QUICK,) if quick else GPU_LENGTHS:
            for name in GPU_BACKENDS:
                for trains in (False, True):
                    does = "training" if trains else "inference"
                    made[f"{name}-{does}-{length}"] = partial(on_gpu, name, length, trains)
        return made
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
    for length in (512, 1024, 4096, 8192):
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
    parser = options(__doc__, devices=True)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="parts, or how their names begin")
    given = parser.parse_args()
    prepare(given)
    BUSY = given.busy
    every = parts(given.quick, given.device)
    chosen = {
        name: make
        for name, make in every.items()
        if given.only is None or name.startswith(tuple(given.only))
    }
    if not chosen:
        parser.error(f"--only: none of {', '.join(every)} begins so")
    where = clock(BUSY, given.device)
    kind = "bfloat16" if given.device == "cuda" else "float32"
    how = f"12 heads x 64, {kind}, {where}{', quick' if given.quick else ''}"
    record = Record("attention", COLUMNS, how, given.out, given.again)
    for name, make in chosen.items():
        record.part(name, make)
    record.done()


if __name__ == "__main__":
    main()
