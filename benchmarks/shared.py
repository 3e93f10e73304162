"""What the benchmarks share: options, tables of results, attention calls and their definition."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import sparseattn as sa
from sparseattn.backend import Call
from sparseattn.files import write_whole

__all__ = ["FOLDER", "HEADS", "WIDTH", "Attend", "Record", "check", "clock", "dense", "make_call",
           "options", "parse", "passes"]  # fmt: skip

FOLDER = Path(__file__).parent / "results"
HEADS, WIDTH = 12, 64
#: Computes the context of a call.
Attend = Callable[[Call], Tensor]


# --- the command line


def options(about: str, devices: bool = False) -> argparse.ArgumentParser:
    """A parser of what every script takes."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--quick", action="store_true", help="short: only to see that it works")
    parser.add_argument("--again", action="store_true", help="run parts that the file holds too")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    if devices:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; sets the one thread that `--busy` counts."""
    args = parser.parse_args(argv)
    if getattr(args, "device", "cpu") == "cuda":
        if not torch.cuda.is_available():
            parser.exit(2, "--device cuda: PyTorch finds no GPU on this machine\n")
        if args.busy:
            parser.exit(2, "--busy counts processor time, and --device cuda is another device\n")
    if args.busy:
        torch.set_num_threads(1)
    return args


# --- results


class Record:
    """The results of one script: a JSON file, and a Markdown table of it.

    Both are written after every part, so that a part that fails does not lose the others. A part
    that is there already is not run again; one that failed is.

    Args:
        name: Of the script; names its files.
        columns: Of its table.
        setting: What the parts have in common, such as `clock()`; each has a table of its own.
        folder: Where the files are.
        again: Whether parts that are there are run again.
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        setting: str,
        folder: Path = FOLDER,
        again: bool = False,
    ) -> None:
        self.columns, self.setting, self.again = list(columns), setting, again
        self.file = folder / f"{name}.json"
        self.table = folder / f"{name}.md"
        self.failed = 0
        self.results: dict[str, Any] = (
            json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        )
        print("\n".join([setting, "", *self._head()]), flush=True)

    def part(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Runs a part, unless it is there, and writes the files.

        Args:
            name: Of the part.
            run: Returns `rows`, the lines of the table, and whatever else is to be stored.
        """
        result = self.results.get(self.setting, {}).get(name)
        if result is None or "failed" in result or self.again:
            start = time.perf_counter()
            try:
                result = run()
            # `check` ends with a `SystemExit`, which ends this part only.
            except (Exception, SystemExit) as error:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                lines = str(error).strip().splitlines() or [type(error).__name__]
                result = {"failed": lines[0]}
            result |= {"seconds": round(time.perf_counter() - start, 1), "machine": _machine()}
            self.results.setdefault(self.setting, {})[name] = result
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, json.dumps(self.results, indent=1) + "\n")
            write_whole(self.table, "\n".join(self._markdown()).rstrip() + "\n")
        self.failed += "failed" in result
        print("\n".join(self._rows(name, result)), flush=True)

    def done(self) -> None:
        """Ends the script, with an error where a part failed."""
        if self.failed:
            sys.exit(f"{self.failed} part(s) failed; the others are in {self.table}")

    def _head(self) -> list[str]:
        return [_line(self.columns), _line(["---"] * len(self.columns))]

    def _rows(self, name: str, result: dict[str, Any]) -> list[str]:
        empty = [""] * (len(self.columns) - 2)
        failed = [[name, f"failed: {result.get('failed')}", *empty]]
        return [_line(row) for row in result.get("rows", failed)]

    def _markdown(self) -> list[str]:
        lines = []
        for setting, parts in self.results.items():
            machines = sorted({result["machine"] for result in parts.values()})
            lines += [f"{setting}; {'; '.join(machines)}", "", *self._head()]
            for name, result in parts.items():
                lines += self._rows(name, result)
            lines.append("")
        return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def clock(busy: bool, device: str = "cpu") -> str:
    """How times are taken."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "processor time of one thread" if busy else f"{torch.get_num_threads()} threads"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value.strip() for key, value in pairs}
    # A cloud's names hide the generation; its numbers do not.
    names = {"model name": "", "cpu family": "family ", "model": "model "}
    processor = " ".join(text + values[key] for key, text in names.items() if key in values)
    return f"torch {torch.__version__}, {processor or platform.machine()}"


# --- calls


def make_call(
    length: int,
    plan: object,
    texts: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    width: int = WIDTH,
    tokens: sa.TokenBatch | None = None,
) -> Call:
    """An attention over `4096 / length` texts, or as many as given, laid out as in BERT."""
    texts = texts or max(1, 4096 // length)
    if tokens is None:
        tokens = sa.TokenBatch(torch.ones(texts, length, dtype=torch.bool, device=device))
    rule = sa.Plan.of(plan).compile(tokens, [HEADS]).layers[0]
    generator = torch.Generator().manual_seed(0)
    shape = (texts, length, HEADS, width)
    states = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
    q, k, v = (x.transpose(1, 2) for x in states)
    return Call(q, k, v, rule, width**-0.5)


def dense(call: Call) -> Tensor:
    """SDPA without a mask; on a GPU its flash kernel."""
    states = call.query, call.key, call.value
    if call.query.device.type == "cpu":
        return scaled_dot_product_attention(*states, dropout_p=call.dropout, scale=call.scale)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(*states, dropout_p=call.dropout, scale=call.scale)


def passes(attend: Attend, call: Call, trains: bool) -> Callable[[], object]:
    """Attention alone, and its gradients for a gradient of the context that is there already."""
    leaves = [x.detach().requires_grad_(trains) for x in (call.query, call.key, call.value)]
    grad = torch.linspace(-1, 1, call.query.numel(), device=call.query.device)
    grad = grad.to(call.query.dtype).view_as(call.query.transpose(1, 2)).transpose(1, 2)
    call = replace(call, query=leaves[0], key=leaves[1], value=leaves[2])

    def run() -> object:
        with torch.set_grad_enabled(trains):
            out = attend(call)
            return torch.autograd.grad(out, leaves, grad) if trains else out

    return run


# --- the definition

#: Largest difference, as a share of the largest number of its tensor. In bfloat16, which has 8
#: bits, weights and results are rounded to 0.4%, and gradients are sums of rounded differences.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
#: Queries of each text that are compared, and those of the smallest tile that a kernel computes.
ROWS, TILE = 64, 16


def check(name: str, attend: Attend, call: Call, gradients: bool = True) -> float:
    """Compares an attention with its definition in float64; ends the part where it differs.

    The loss weighs the contexts of some queries only. These define the gradients of all queries,
    keys and values, without a tensor of length x length. There is no padding and no dropout.

    Args:
        name: What is compared, for the message.
        attend: Computes it.
        call: What to compute.
        gradients: Whether to compare gradients, too, and not only contexts under `no_grad`.

    Returns:
        The largest difference of a tensor, as a share of the largest number in it.
    """
    rows = sampled(call.rule.length).to(call.query.device)
    # Rounded like the states: what is compared starts from the same numbers.
    shape = (*call.query.shape[:2], len(rows), call.query.shape[3])
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(call.query)
    results = _results(attend, call, rows, weights if gradients else None)
    sizes = []
    for head in range(call.rule.heads):
        expected = _expected(call, head, rows, weights[:, head])
        pairs = [(ours[:, head].double(), expected[kind]) for kind, ours in results]
        sizes.append([(float((a - b).abs().max()), float(b.abs().max())) for a, b in pairs])
    # `amax` does not lose NaN, as Python's `max` may.
    apart, largest = torch.tensor(sizes, dtype=torch.float64).amax(0).unbind(-1)
    worst, limit = float((apart / largest.clamp(min=1e-6)).amax()), LIMITS[call.query.dtype]
    if not worst < limit:
        where = f"{call.rule.length} tokens"
        sys.exit(f"{name} differs from the definition by {worst:.2g} at {where} ({limit:g})")
    return worst


def sampled(length: int) -> Tensor:
    """Queries at both ends, at both sides of borders of tiles, in a run across one, and others."""
    if length <= ROWS:
        return torch.arange(length)
    generator = torch.Generator().manual_seed(length)
    borders = torch.randint(1, -(-length // TILE), (TILE,), generator=generator) * TILE
    run = (borders[0] - TILE // 2 + torch.arange(TILE)).clamp(max=length - 1)
    others = torch.randint(length, (ROWS - 2 - 3 * TILE,), generator=generator)
    return torch.cat([torch.tensor([0, length - 1]), borders - 1, borders, run, others]).unique()


def _results(
    attend: Attend, call: Call, rows: Tensor, weights: Tensor | None
) -> list[tuple[str, Tensor]]:
    with torch.no_grad():
        results = [("context", attend(call)[:, :, rows])]
    if weights is None:
        return results
    leaves = [x.detach().requires_grad_() for x in (call.query, call.key, call.value)]
    context = attend(replace(call, query=leaves[0], key=leaves[1], value=leaves[2]))
    grad = torch.zeros_like(context).index_copy_(2, rows, weights)
    grads = torch.autograd.grad(context, leaves, grad)
    results.append(("context", context.detach()[:, :, rows]))
    return [*results, *zip(("query", "key", "value"), grads, strict=True)]


def _expected(call: Call, head: int, rows: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The definition for one head of all texts."""
    query, key, value = (
        x[:, head].detach().double().requires_grad_() for x in (call.query, call.key, call.value)
    )
    every = torch.arange(call.rule.length, device=rows.device)
    allowed = call.rule.allowed(rows, every, [head])[:, 0]
    scores = (query[:, rows] @ key.transpose(1, 2)) * call.scale
    context = scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ value
    grads = torch.autograd.grad(context, (query, key, value), weights.double())
    return {"context": context.detach(), **dict(zip(("query", "key", "value"), grads, strict=True))}
