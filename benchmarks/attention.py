"""What sparse attention costs on this machine: the first table of docs/benchmarks.md.

Every time follows a comparison of outputs and gradients with the `reference` backend in the same
process; a difference ends the run. Times are medians of runs that take turns. With `--busy` they
are processor times of one thread, for machines that others use too.

    python benchmarks/attention.py [--busy] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import scaled_dot_product_attention

import sparseattn as sa
from sparseattn.backends.base import Call, backend
from sparseattn.bench.timing import alternate, step

HEADS, WIDTH = 12, 64
REPEATS = 5
BUSY = False


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


def attend(name: str, one: Call, trains: bool) -> Callable[[], None]:
    leaves = [x.detach().requires_grad_(trains) for x in (one.query, one.key, one.value)]

    def run() -> torch.Tensor:
        q, k, v = leaves
        if name == "dense":
            return scaled_dot_product_attention(q, k, v, dropout_p=one.dropout)
        return backend(name).attend(replace(one, query=q, key=k, value=v))

    return step(run, trains)


def compare(length: int, radius: int, trains: bool, target: float) -> None:
    plan = f"neighbor(radius={radius})"
    worst = check(length, plan)
    one = call(length, plan)
    with torch.no_grad():
        backend("tiled").attend(one)
    t = timed({name: attend(name, one, trains) for name in ("dense", "tiled")})
    ratio = t["dense"] / t["tiled"]
    work = "forward + backward" if trains else "inference"
    print(
        f"| {work}, radius {radius}, {length} tokens | dense {1e3 * t['dense']:.1f} ms | "
        f"{1e3 * t['tiled']:.1f} ms | {ratio:.1f}x | >= {target:g}x | {worst:.0e} |"
    )


def attention() -> None:
    """Inference at radius 32 and forward + backward at radius 16, against dense SDPA."""
    for length, target in ((512, 4), (1024, 8), (4096, 20), (8192, 40)):
        compare(length, 32, False, target)
    for length, target in ((512, 2), (1024, 6), (2048, 12)):
        compare(length, 16, True, target)


def flex() -> None:
    """Compiled FlexAttention with blocks of 32, inference at radius 32."""
    for length in (512, 1024, 4096):
        plan = "neighbor(radius=32)"
        one = call(length, plan)
        if reasons := backend("flex").reasons(one):
            print("flex cannot run:", "; ".join(reasons))
            return
        with torch.no_grad():
            worst = max(check(length, plan), _apart(one, "flex", "tiled"))
        t = timed({name: attend(name, one, False) for name in ("flex", "tiled")})
        print(
            f"| inference, radius 32, {length} tokens | flex {1e3 * t['flex']:.1f} ms | "
            f"{1e3 * t['tiled']:.1f} ms | {t['flex'] / t['tiled']:.2f}x | >= 0.9x | {worst:.0e} |"
        )


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


def mixed(length: int = 4096) -> None:
    """Learned radii against one radius for all with the same number of score entries."""
    tiled = backend("tiled")
    for what, plan in LEARNED.items():
        worst = check(2048, plan, HEADS)
        learned = call(length, plan, 1)
        # Windows that end between tiles as well: computed entries grow by steps of a key a tile.
        uniform = min(
            (call(length, f"neighbor(radius={r})", 1) for r in range(0, 160)),
            key=lambda c, m=learned: abs(tiled.computed(c.rule) - tiled.computed(m.rule)),
        )
        density, same = (tiled.computed(c.rule) / (HEADS * length**2) for c in (learned, uniform))
        for trains in (False, True):
            calls = {"learned": learned, "uniform": uniform}
            t = timed({name: attend("tiled", c, trains) for name, c in calls.items()})
            print(
                f"| {'forward + backward' if trains else 'inference'}, {what}, {length} tokens, "
                f"block density {density:.2%} | uniform, {same:.2%}: {1e3 * t['uniform']:.1f} ms | "
                f"{1e3 * t['learned']:.1f} ms | {t['uniform'] / t['learned']:.2f}x | >= 0.7x | "
                f"{worst:.0e} |"
            )


def growth() -> None:
    """The exponent of time over length at a fixed radius."""
    plan = "neighbor(radius=32) | global(cls)"
    for trains in (False, True):
        worst, points = 0.0, []
        for length in (2048, 4096, 8192, 16384, 32768):
            if length <= 4096:
                worst = max(worst, check(length, plan))
            one = call(length, plan, 1)
            seconds = timed({"tiled": attend("tiled", one, trains)})["tiled"]
            points.append((math.log(length), math.log(seconds)))
        print(
            f"| {'forward + backward' if trains else 'inference'}, radius 32 + cls, 2k to 32k "
            f"tokens | exponent | {slope(points):.3f} | - | <= 1.1 | {worst:.0e} |"
        )


def slope(points: list[tuple[float, float]]) -> float:
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x in xs)


PARTS = {f.__name__: f for f in (attention, mixed, growth, flex)}


def main() -> None:
    global BUSY
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="NAME")
    given = parser.parse_args()
    BUSY = given.busy
    if BUSY:
        torch.set_num_threads(1)
    clock = "processor time of one thread" if BUSY else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {platform.machine()}, {clock}\n")
    print("| what | against | sparse | ratio | target | difference from reference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in given.only:
        PARTS[name]()


if __name__ == "__main__":
    main()
