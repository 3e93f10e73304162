"""Whole encoders: sparse against the floor, the stock model, Longformer and BigBird.

BERT, Longformer and BigBird of one size, with random weights. *The floor* is the sparse encoder
with attention replaced by its values. Before a row is timed, outputs and gradients of the sparse
encoder are compared with the `reference` backend on the same weights, at up to 1024 tokens, and
its outputs with the `masked` backend at the full length; a difference ends the run. Then the
contestants take turns in one process. What is printed are medians, and the sparse encoder's time
as a multiple of each other one's.

Rows that the results file holds are not run again, so that a long run can be done row by row.

    python benchmarks/encoders.py [--rows ROW ...] [--repeats N] [--quick] [--busy] [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BigBirdConfig,
    BigBirdModel,
    LongformerConfig,
    LongformerModel,
)

import sparseattn as sa
from sparseattn.bench.timing import floor, samples, step
from sparseattn.models.attached import attached

HEADS = 12
#: Longest text whose gradients are compared with the definition's.
COMPARED = 1024
#: Largest differences: of outputs, and of gradients as a share of the largest in their tensor.
OUTPUTS, GRADIENTS = 1e-4, 1e-3
#: BigBird's block; its window is one block to either side and a token's own.
BLOCK = 64
#: Bytes that SDPA keeps on a CPU for each score when it drops weights in training (measured).
KEPT = 12.5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        layers: Layers of the encoder.
        width: Its width.
        length: Tokens a text.
        trains: Whether a forward and backward pass is timed rather than inference.
        dropout: Dropout of attention weights.
        most: What the sparse encoder's time may be, as a multiple of each contestant's; none for
            contestants that are timed for information.
        radius: Of the plan's window; the first token is global.
        texts: Texts a batch.
    """

    layers: int
    width: int
    length: int
    trains: bool
    dropout: float
    most: dict[str, float | None]
    radius: int = 64
    texts: int = 1

    @property
    def plan(self) -> str:
        """The plan of the sparse encoder."""
        return f"neighbor(radius={self.radius}) | global(cls)"

    @property
    def work(self) -> str:
        """What the row is about, in words."""
        what = f"training step, dropout {self.dropout:g}" if self.trains else "inference"
        batch = f"{self.texts} x {self.length}" if self.texts > 1 else str(self.length)
        return f"{what}, {self.layers} x {self.width}, {batch} tokens, radius {self.radius} + cls"


def _rows() -> dict[str, Row]:
    rivals = {"stock": 1.0, "longformer": 1.0, "bigbird": 1.0}
    rows = {}
    for layers, width in ((6, 384), (12, 768)):
        size = f"{layers}x{width}"
        rows[f"inference-{size}"] = Row(layers, width, 4096, False, 0.0, {"floor": 1.1, **rivals})
        for name, dropout in (("training", 0.0), ("dropout", 0.1)):
            rows[f"{name}-{size}"] = Row(
                layers, width, 4096, True, dropout, {"floor": 1.35, **rivals}
            )
    # Of short texts as many as make 4096 tokens, which is what the targets are for, and one.
    for texts in (8, 1):
        most = {"floor": None, "stock": 0.5}
        rows[f"dropout-{texts}x512"] = Row(6, 384, 512, True, 0.1, most, radius=32, texts=texts)
    for texts in (32, 1):
        near = {"stock": 1.03}
        for name, trains in (("inference", False), ("dropout", True)):
            dropout = 0.1 if trains else 0.0
            rows[f"{name}-{texts}x128"] = Row(
                6, 384, 128, trains, dropout, near, radius=32, texts=texts
            )
    return rows


ROWS = _rows()


# --- the contestants


def bert(row: Row, layers: int | None = None) -> BertModel:
    """The stock encoder; the same weights each time."""
    torch.manual_seed(0)
    config = BertConfig(**_size(row, layers), max_position_embeddings=row.length)
    return BertModel(config, add_pooling_layer=False).train(row.trains)


def _size(row: Row, layers: int | None = None) -> dict[str, Any]:
    return {
        "vocab_size": 1000,
        "hidden_size": row.width,
        "num_hidden_layers": layers or row.layers,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * row.width,
        "attention_probs_dropout_prob": row.dropout,
    }


def longformer(row: Row) -> Callable[[Tensor], Tensor]:
    """Longformer with the same window and a global first token.

    Its `attention_window` counts both sides: twice the radius.
    """
    config = LongformerConfig(
        **_size(row), max_position_embeddings=row.length + 2, attention_window=2 * row.radius
    )
    model = LongformerModel(config, add_pooling_layer=False).train(row.trains)

    def run(ids: Tensor) -> Tensor:
        first = torch.zeros_like(ids)
        first[:, 0] = 1
        return model(input_ids=ids, global_attention_mask=first).last_hidden_state

    return run


def bigbird(row: Row) -> Callable[[Tensor], Tensor]:
    """BigBird with blocks of 64, which its window needs to hold ours, and one random block.

    It makes its first and last block global, cannot do without random blocks, and drops no
    attention weights whatever its config says.
    """
    config = BigBirdConfig(
        **_size(row), max_position_embeddings=row.length, hidden_act="gelu",
        attention_type="block_sparse", block_size=BLOCK, num_random_blocks=1,
    )  # fmt: skip
    model = BigBirdModel(config, add_pooling_layer=False).train(row.trains)
    return partial(states, model)


def states(model: Any, ids: Tensor) -> Tensor:
    """The last hidden states. Shape: [texts, length, width]."""
    return model(input_ids=ids).last_hidden_state


def contestants(row: Row, values: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """What takes turns, by name; `values` names the backend of the floor."""
    stock = bert(row)
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    makers = {
        "floor": lambda: partial(states, sa.sparsify(deepcopy(stock), row.plan, backend=values)),
        "stock": lambda: partial(states, stock),
        "longformer": partial(longformer, row),
        "bigbird": partial(bigbird, row),
    }
    for name in row.most:
        made[name] = makers[name]()
    return made


# --- the gate


def checked(row: Row, ids: Tensor) -> tuple[float, str]:
    """Compares the sparse encoder with the definition.

    Returns:
        The largest difference, of outputs and of gradients as a share of the largest in their
        tensor, and the backend that `auto` takes at the full length.
    """
    model = bert(row)
    chosen = backend_of(row, model, ids)
    short = ids[:1, :COMPARED]
    ours, wanted = (results(row, model, name, short) for name in (chosen, "reference"))
    worst = _near(ours[0], wanted[0], 1.0, OUTPUTS, row)
    # The gradient of a key's bias is zero but for rounding: no tensor is held to a tiny scale.
    largest = max(float(grad.abs().max()) for grad in wanted[1:])
    for grad, want in zip(ours[1:], wanted[1:], strict=True):
        scale = max(float(want.abs().max()), 1e-3 * largest)
        worst = max(worst, _near(grad, want, scale, GRADIENTS, row))
    if row.length > COMPARED and chosen != "masked":
        with torch.no_grad():
            ours, wanted = (
                states(sparsified(row, model, name).eval(), ids) for name in (chosen, "masked")
            )
        worst = max(worst, _near(ours, wanted, 1.0, OUTPUTS, row))
    return worst, chosen


def sparsified(row: Row, model: BertModel, backend: str) -> BertModel:
    # A copy: sparsify() writes the plan into the config.
    return sa.sparsify(deepcopy(model), row.plan, backend=backend)


def backend_of(row: Row, model: BertModel, ids: Tensor) -> str:
    """What `auto` picks for the row."""
    sparse = sparsified(row, model, "auto")
    with torch.set_grad_enabled(row.trains):
        states(sparse, ids)
    names = {name for name, _ in attached(sparse).current.chosen.values()}
    if len(names) > 1:
        sys.exit(f"auto takes several backends ({', '.join(sorted(names))}) for {row.work}")
    return names.pop()


def results(row: Row, model: BertModel, backend: str, ids: Tensor) -> list[Tensor]:
    """The output and the gradients of all parameters, without dropout."""
    sparse = sparsified(row, model, backend).eval()
    out = states(sparse, ids)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    grads = torch.autograd.grad((out * weight).sum(), list(sparse.parameters()), allow_unused=True)
    zero = torch.zeros(1)
    return [out.detach(), *(zero if grad is None else grad for grad in grads)]


def _near(ours: Tensor, wanted: Tensor, scale: float, limit: float, row: Row) -> float:
    off = float((ours - wanted).abs().max()) / scale
    if not off < limit:
        sys.exit(f"not timed: {row.work} differs from the definition by {off:.2g} ({limit:g})")
    return off


# --- the times


def timed(row: Row, ids: Tensor, chosen: str, options: argparse.Namespace) -> dict[str, Any]:
    """All times of a row, by contestant, and whether the stock model's is extrapolated."""
    slow = row.trains and row.dropout > 0 and row.length > COMPARED
    with ExitStack() as stack:
        runs = contestants(row, stack.enter_context(floor()))
        runs = {"sparse": partial(states, sparsified(row, bert(row), chosen)), **runs}
        short = slow and "stock" in runs and not _fits(row)
        if short:
            del runs["stock"]
        steps = {name: step(partial(run, ids), row.trains) for name, run in runs.items()}
        most = {"stock": 1} if slow else None
        times = samples(steps, options.repeats, busy=options.busy, most=most)
    if short:
        times["stock"] = [_extrapolated(row, ids, options.busy)]
    return {"times": times, "extrapolated": short}


def _fits(row: Row) -> bool:
    """Whether the scores that the stock model keeps for its backward pass fit in free memory."""
    scores = row.texts * HEADS * row.length**2
    return row.layers * scores * KEPT < 0.8 * psutil.virtual_memory().available


def _extrapolated(row: Row, ids: Tensor, busy: bool) -> float:
    """The stock model's time from one and two layers: each further one costs the same."""
    steps = {str(n): step(partial(states, bert(row, layers=n), ids), row.trains) for n in (1, 2)}
    one, two = (t[0] for t in samples(steps, 1, warm=0, busy=busy).values())
    return one + (row.layers - 1) * (two - one)


# --- results, and what is printed


def measure(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (row.texts, row.length), generator=generator)
    difference, chosen = checked(row, ids)
    return {
        "work": row.work,
        "backend": chosen,
        "difference": difference,
        "limits": row.most,
        **timed(row, ids, chosen, options),
        "machine": f"torch {torch.__version__}, {platform.machine()}, {_clock(options.busy)}",
    }


def _clock(busy: bool) -> str:
    return "processor time of one thread" if busy else f"{torch.get_num_threads()} threads"


def line(found: dict[str, Any]) -> str:
    """A result as a line of the table."""
    medians = {name: 1000 * median(times) for name, times in found["times"].items()}
    sparse = medians.pop("sparse")
    cells = []
    for name in ("floor", "stock", "longformer", "bigbird"):
        if name not in medians:
            cells.append("-")
            continue
        ratio, limit = sparse / medians[name], found["limits"][name]
        target = "" if limit is None else f" (at most {limit:g}: {_verdict(ratio, limit)})"
        note = " by its first 2 layers" if name == "stock" and found["extrapolated"] else ""
        cells.append(f"{medians[name]:.1f} ms{note}, {ratio:.3f}{target}")
    rounds = len(found["times"]["sparse"])
    return (
        f"| {found['work']} | {sparse:.1f} ms ({found['backend']}) | {' | '.join(cells)} | "
        f"{rounds} | {found['difference']:.0e} |"
    )


def _verdict(ratio: float, limit: float) -> str:
    return "met" if ratio <= limit else "missed"


def stored(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def store(file: Path, results: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file)


def asked(argv: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW",
                        help=f"of {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds")
    parser.add_argument("--quick", action="store_true", help="at most 1024 tokens, one round")
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--again", action="store_true", help="run rows that the file holds too")
    parser.add_argument("--out", type=Path, default=Path("runs/encoders.json"), help="results")
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats = 1
    return options


def main() -> None:
    options = asked()
    if options.busy:
        torch.set_num_threads(1)
    results = stored(options.out)
    print("| what | sparse | floor | stock | Longformer | BigBird | rounds | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.rows:
        row = ROWS[name]
        if options.quick:
            row = replace(row, length=min(row.length, COMPARED))
        key = f"{name}, {row.length} tokens, {options.repeats} rounds, {_clock(options.busy)}"
        if key not in results or options.again:
            results[key] = measure(row, options)
            store(options.out, results)
        print(line(results[key]), flush=True)


if __name__ == "__main__":
    main()
