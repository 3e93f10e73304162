"""The table of docs/benchmarks.md: what sparse attention costs on this machine.

Every time follows a comparison of outputs and gradients with the `reference` backend in the same
process; a difference ends the run. Times are medians of runs that take turns. With `--busy` they
are processor times of one thread, for machines that others use too.

    python benchmarks/attention.py [--busy] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import math
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel

import sparseattn as sa
from sparseattn.backends.base import Call, backend
from sparseattn.bench.timing import alternate, floor, step
from sparseattn.rules import Band, LayerRule, Rule

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
        one = call(length, "neighbor(radius=32)")
        if reasons := backend("flex").reasons(one):
            print("flex cannot run:", "; ".join(reasons))
            return
        t = timed({name: attend(name, one, False) for name in ("flex", "tiled")})
        print(
            f"| inference, radius 32, {length} tokens | flex {1e3 * t['flex']:.1f} ms | "
            f"{1e3 * t['tiled']:.1f} ms | {t['flex'] / t['tiled']:.2f}x | >= 0.9x | - |"
        )


def mixed() -> None:
    """Mixed radii per head against one radius with the same number of score entries."""
    radii = (0, 4, 8, 8, 16, 16, 32, 32, 48, 64, 96, 128)
    plan = {0: {str(head): f"neighbor(radius={r})" for head, r in enumerate(radii)}}
    worst = check(2048, {0: {"0": "neighbor(radius=0)", "1": "neighbor(radius=96)"}})
    irregular, dense = call(4096, plan), call(4096, "full()")
    tiled = backend("tiled")
    same = min(
        (call(4096, f"neighbor(radius={r})", 1) for r in range(24, 80, 4)),
        key=lambda c: abs(tiled.computed(c.rule) - tiled.computed(irregular.rule)),
    )
    for trains in (False, True):
        calls = {"mixed": irregular, "uniform": same}
        t = timed({name: attend("tiled", c, trains) for name, c in calls.items()})
        density = tiled.computed(irregular.rule) / (dense.rule.heads * 4096**2)
        print(
            f"| {'forward + backward' if trains else 'inference'}, mixed radii, 4096 "
            f"tokens, block density {density:.1%} | uniform {1e3 * t['uniform']:.1f} ms | "
            f"{1e3 * t['mixed']:.1f} ms | {t['uniform'] / t['mixed']:.2f}x | >= 0.7x | "
            f"{worst:.0e} |"
        )


def growth() -> None:
    """The exponent of time over length at a fixed radius."""
    for trains in (False, True):
        points = []
        for length in (2048, 4096, 8192, 16384, 32768):
            one = call(length, "neighbor(radius=32) | global(cls)", 1)
            seconds = timed({"tiled": attend("tiled", one, trains)}, 3)["tiled"]
            points.append((math.log(length), math.log(seconds)))
        print(
            f"| {'forward + backward' if trains else 'inference'}, radius 32 + cls, 2k to 32k "
            f"tokens | exponent | {slope(points):.3f} | - | <= 1.1 | - |"
        )


def slope(points: list[tuple[float, float]]) -> float:
    xs, ys = zip(*points, strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x in xs)


def encoder(layers: int, width: int, length: int, trains: bool, dropout: float) -> None:
    """A BERT of random weights at one length: stock, sparse, and attention replaced by values."""
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, max_position_embeddings=length,
        attention_probs_dropout_prob=dropout, vocab_size=1000,
    )  # fmt: skip
    plan = "neighbor(radius=64) | global(cls)"
    ids = torch.randint(5, 1000, (1, length), generator=torch.Generator().manual_seed(0))

    def model(name: str | None) -> BertModel:
        torch.manual_seed(0)
        # A copy: sparsify() writes the plan into the config.
        made = BertModel(deepcopy(config), add_pooling_layer=False).train(trains)
        return made if name is None else sa.sparsify(made, plan, backend=name)

    def forward(one: BertModel) -> torch.Tensor:
        return one(input_ids=ids).last_hidden_state

    worst = _checked(model, ids[:, :1024])
    with floor() as name:
        models = {"floor": model(name), "sparse": model("tiled")}
        if not (trains and dropout):
            models["dense"] = model(None)
        t = timed({key: step(partial(forward, one), trains) for key, one in models.items()}, 3)
    target = 1.35 if trains else 1.1
    work = f"training step, dropout {dropout:g}" if trains else "inference"
    dense = f", dense {1e3 * t['dense']:.0f} ms" if "dense" in t else ""
    print(
        f"| {work}, {layers} x {width}, {length} tokens, radius 64 + cls | floor "
        f"{1e3 * t['floor']:.0f} ms{dense} | {1e3 * t['sparse']:.0f} ms | "
        f"{t['sparse'] / t['floor']:.3f}x the floor | <= {target}x | {worst:.0e} |"
    )


def _checked(model: Callable[[str], BertModel], ids: torch.Tensor) -> float:
    with torch.no_grad():
        ours, wanted = (
            model(name).eval()(input_ids=ids).last_hidden_state for name in ("tiled", "reference")
        )
    worst = float((ours - wanted).abs().max())
    if not worst < 1e-3:
        sys.exit(f"the encoder under tiled differs from reference by {worst:.2g}")
    return worst


def encoders() -> None:
    """Whole encoders at 4,096 tokens against the floor."""
    for layers, width in ((6, 384), (12, 768)):
        encoder(layers, width, 4096, False, 0.1)
        for dropout in (0.0, 0.1):
            encoder(layers, width, 4096, True, dropout)


def short() -> None:
    """6 x 384 against the stock model: 512 tokens in training, 128 tokens in inference."""
    for length, texts, trains, plan, target in (
        (512, 1, True, "neighbor(radius=32) | global(cls)", ">= 2x"),
        (128, 8, False, "neighbor(radius=32) | global(cls)", ">= 0.97x"),
    ):
        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536,
            vocab_size=1000,
        )  # fmt: skip
        stock = BertModel(config, add_pooling_layer=False).train(trains)
        sparse = sa.sparsify(deepcopy(stock), plan)
        ids = torch.randint(5, 1000, (texts, length))
        models = {"stock": stock, "sparse": sparse}

        def forward(one: BertModel, ids: torch.Tensor = ids) -> torch.Tensor:
            return one(input_ids=ids).last_hidden_state

        t = timed({k: step(partial(forward, m), trains) for k, m in models.items()}, 15)
        name = sa.describe(sparse, {"input_ids": ids}).layers[0].backend
        work = "training step, dropout 0.1" if trains else "inference"
        print(
            f"| {work}, 6 x 384, {texts} x {length} tokens, auto ({name.split(' ')[0]}) | stock "
            f"{1e3 * t['stock']:.1f} ms | {1e3 * t['sparse']:.1f} ms | "
            f"{t['stock'] / t['sparse']:.2f}x | {target} | - |"
        )


def peak(name: str, length: int) -> None:
    """Prints how many MB one forward and backward pass adds to this process, in it alone."""
    one = call(length, "neighbor(radius=32) | global(cls)", 1)
    small = LayerRule(((tuple(range(HEADS)), Rule((Band(1),))),), HEADS, one.rule.valid[:, :64])
    tiny = replace(
        one,
        query=one.query[:, :, :64],
        key=one.key[:, :, :64],
        value=one.value[:, :, :64],
        rule=small,
    )
    attend(name, tiny, True)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attend(name, one, True)()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def memory() -> None:
    """Peak extra memory of a forward and backward pass, each in its own process."""

    def measured(name: str, length: int) -> float:
        command = [sys.executable, __file__, "--peak", name, str(length)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    lengths = (1024, 2048, 4096, 8192, 16384, 32768)
    found = {length: measured("tiled", length) for length in lengths}
    masked = measured("masked", 4096)
    points = [(math.log(n), math.log(max(mb, 1.0))) for n, mb in found.items() if n >= 4096]
    print(
        f"| extra memory, forward + backward, 4096 tokens | masked {masked:.0f} MB | "
        f"{found[4096]:.0f} MB | {masked / found[4096]:.0f}x | >= 10x at 8192 | - |"
    )
    listed = ", ".join(f"{n}: {mb:.0f} MB" for n, mb in found.items())
    print(
        f"| growth of memory with length ({listed}) | exponent | {slope(points):.2f} | - | 1 | - |"
    )


PARTS = {f.__name__: f for f in (attention, mixed, growth, short, memory, encoders, flex)}


def main() -> None:
    global BUSY
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="NAME")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak[0], int(given.peak[1]))
        return
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
