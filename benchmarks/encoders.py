"""Whole encoders with random weights: sparse against stock BERT, Longformer and BigBird.

Before a row is timed, outputs and gradients of the sparse encoder are compared with the `reference`
backend on the same weights, at up to 1024 tokens of each text and without dropout, and its outputs
with the `masked` backend at the full length; a difference ends the row. Then the encoders take
turns: a round that is not counted, and as many more as fit in the time for a row. The results are
medians, and the sparse encoder's time as a multiple of each other one's. *Floor* and *bound* are
those of `sparseattn.bench.timing`.

    python benchmarks/encoders.py [--rows ROW ...] [--seconds S] [--quick] [--busy] [--again]
                                  [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import perf_counter
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
from calls import HEADS, SCORE_BYTES
from shared import Record, clock, options, parse
from sparseattn.bench.measure import differences, output_and_gradients
from sparseattn.bench.timing import free_attention, samples, step
from sparseattn.models.state import attached_state

OTHERS = ("floor", "bound", "stock", "Longformer", "BigBird")
COLUMNS = ("what", "sparse", *OTHERS, "rounds", "difference")
#: Longest text whose gradients are compared with the definition's.
COMPARED = 1024
#: Largest differences: of outputs, and of gradients as a share of the largest in their tensor.
OUTPUTS, GRADIENTS = 1e-4, 1e-3
#: Fewest and most rounds of a row.
MIN_ROUNDS, MAX_ROUNDS = 2, 15


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        layers: Layers of the encoder.
        width: Its width.
        length: Tokens a text.
        trains: Whether a forward and backward pass is timed rather than inference.
        dropout: Dropout of attention weights.
        targets: The encoders to compare with, and the largest ratio to each; None for no target.
        radius: Of the plan's window; the first token is global.
        texts: Texts a batch.
        device: Where all encoders are.
    """

    layers: int
    width: int
    length: int
    trains: bool
    dropout: float
    targets: dict[str, float | None]
    radius: int = 64
    texts: int = 1
    device: str = "cpu"

    @property
    def work(self) -> str:
        """What is timed, in words."""
        what = f"training step, dropout {self.dropout:g}" if self.trains else "inference"
        batch = f"{self.texts} x {self.length}" if self.texts > 1 else str(self.length)
        return f"{what}, {self.layers} x {self.width}, {batch} tokens, radius {self.radius} + cls"


def _rows() -> dict[str, Row]:
    rows = {}
    for texts in (8, 1):
        targets = {"floor": None, "bound": None, "stock": 0.5}
        rows[f"dropout-{texts}x512"] = Row(6, 384, 512, True, 0.1, targets, 32, texts)
    for texts in (32, 1):
        near = {"stock": 1.03}
        rows[f"inference-{texts}x128"] = Row(6, 384, 128, False, 0.0, near, 32, texts)
        rows[f"dropout-{texts}x128"] = Row(6, 384, 128, True, 0.1, near, 32, texts)
    rivals = {"stock": 1.0, "Longformer": 1.0, "BigBird": 1.0}
    for layers, width in ((6, 384), (12, 768)):
        size = f"{layers}x{width}"
        rows[f"inference-{size}"] = Row(layers, width, 4096, False, 0.0, {"floor": 1.1, **rivals})
        targets = {"floor": 1.35, "bound": None, **rivals}
        for name, dropout in (("dropout", 0.1), ("training", 0.0)):
            rows[f"{name}-{size}"] = Row(layers, width, 4096, True, dropout, targets)
    return rows


ROWS = _rows()


# --- the encoders


def _size(row: Row) -> dict[str, Any]:
    return {
        "vocab_size": 1000,
        "hidden_size": row.width,
        "num_hidden_layers": row.layers,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * row.width,
        "attention_probs_dropout_prob": row.dropout,
    }


def bert(row: Row) -> BertModel:
    """The stock encoder; the same weights each time."""
    torch.manual_seed(0)
    config = BertConfig(**_size(row), max_position_embeddings=row.length)
    return BertModel(config, add_pooling_layer=False).to(row.device).train(row.trains)


def sparsified(row: Row, model: BertModel, backend: str) -> BertModel:
    # A copy: sparsify() writes the plan into the config.
    plan = f"neighbor(radius={row.radius}) | global(cls)"
    return sa.sparsify(deepcopy(model), plan, backend=backend)


def longformer(row: Row) -> Callable[[Tensor], Tensor]:
    """Longformer with the same window and a global first token."""
    window = 2 * row.radius  # it counts both sides
    config = LongformerConfig(
        **_size(row), max_position_embeddings=row.length + 2, attention_window=window
    )
    model = LongformerModel(config, add_pooling_layer=False).to(row.device).train(row.trains)

    def run(ids: Tensor) -> Tensor:
        first = torch.zeros_like(ids)
        first[:, 0] = 1
        return model(input_ids=ids, global_attention_mask=first).last_hidden_state

    return run


def bigbird(row: Row) -> Callable[[Tensor], Tensor]:
    """BigBird with blocks of 64, which its window needs to hold ours, and one random block.

    Its first and last block are global, it cannot do without random blocks, and it drops no
    attention weights whatever its config says.
    """
    config = BigBirdConfig(
        **_size(row), max_position_embeddings=row.length, hidden_act="gelu",
        attention_type="block_sparse", block_size=64, num_random_blocks=1,
    )  # fmt: skip
    model = BigBirdModel(config, add_pooling_layer=False).to(row.device).train(row.trains)
    return partial(states, model)


def states(model: Any, ids: Tensor) -> Tensor:
    """The last hidden states. Shape: [texts, length, width]."""
    return model(input_ids=ids).last_hidden_state


def encoders(row: Row, names: Sequence[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The encoders by name; floor and bound must be registered."""
    stock = bert(row)
    builders: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "sparse": lambda: partial(states, sparsified(row, stock, "auto")),
        "floor": lambda: partial(states, sparsified(row, stock, "floor")),
        "bound": lambda: partial(states, sparsified(row, stock, "bound")),
        "stock": lambda: partial(states, stock),
        "Longformer": partial(longformer, row),
        "BigBird": partial(bigbird, row),
    }
    return {name: builders[name]() for name in names}


# --- the comparison


def check(row: Row, ids: Tensor) -> tuple[float, str]:
    """Compares the sparse encoder with the definition.

    Returns:
        The largest difference, of outputs and of gradients as a share of the largest in their
        tensor, and the backend that `auto` takes at the full length.
    """
    model = bert(row)
    sparse = sparsified(row, model, "auto")
    with torch.set_grad_enabled(row.trains):
        states(sparse, ids)
    names = {name for name, _ in attached_state(sparse).last.chosen.values()}
    if len(names) > 1:
        sys.exit(f"auto takes several backends ({', '.join(sorted(names))}) for {row.work}")
    (chosen,) = names
    results = []
    for name in (chosen, "reference"):
        sparse = sparsified(row, model, name).eval()
        run = partial(states, sparse, ids[:, :COMPARED])
        results.append(output_and_gradients(run, sparse.parameters()))
    errors = list(zip(differences(*results), (OUTPUTS, GRADIENTS), strict=True))
    if row.length > COMPARED and chosen != "masked":
        with torch.no_grad():
            ours, masked = (
                states(sparsified(row, model, name).eval(), ids) for name in (chosen, "masked")
            )
        errors.append((float((ours - masked).abs().max()), OUTPUTS))
    for error, limit in errors:
        if not error < limit:
            sys.exit(
                f"not timed: {row.work} differs from the definition by {error:.2g} ({limit:g})"
            )
    return max(error for error, _ in errors), chosen


# --- the times


def measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """Compares, times, and writes a line."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (row.texts, row.length), generator=generator).to(row.device)
    difference, chosen = check(row, ids)
    # Stock attention with dropout stores every score: slow, and too much for some memories.
    slow = row.device == "cpu" and row.trains and row.dropout > 0 and row.length > COMPARED
    scores = row.layers * row.texts * HEADS * row.length**2
    fits = scores * SCORE_BYTES < 0.8 * psutil.virtual_memory().available
    names = ["sparse", *(name for name in row.targets if name != "stock" or fits or not slow)]
    with ExitStack() as stack:
        stack.enter_context(free_attention(trains=False))
        stack.enter_context(free_attention(trains=True))
        runs = {
            name: step(partial(run, ids), row.trains) for name, run in encoders(row, names).items()
        }
        times = timed(runs, args, {"stock"} & runs.keys() if slow else set())
    medians = {name: 1000 * median(seconds) for name, seconds in times.items()}
    sparse = medians.pop("sparse")
    cells = [row.work, f"{sparse:.1f} ms ({chosen})"]
    for name in OTHERS:
        cell = "-"
        if name in medians:
            ratio, target = sparse / medians[name], row.targets[name]
            cell = f"{medians[name]:.1f} ms, {ratio:.3f}"
            if target is not None:
                cell += f" (at most {target:g}: {'met' if ratio <= target else 'missed'})"
        elif name in row.targets:
            cell = "does not fit in memory"
        cells.append(cell)
    cells += [str(len(times["sparse"])), f"{difference:.0e}"]
    return {"rows": [cells], "backend": chosen, "difference": difference, "times": times}


def timed(
    runs: dict[str, Callable[[], None]], args: argparse.Namespace, once: set[str]
) -> dict[str, list[float]]:
    """Times of runs that take turns for the time of a row; those that are slow, only once."""
    start = perf_counter()
    samples({name: run for name, run in runs.items() if name not in once}, 1, warm=0)
    fitting = round(args.seconds / (perf_counter() - start))
    rounds = 1 if args.quick else min(MAX_ROUNDS, max(MIN_ROUNDS, fitting))
    return samples(runs, rounds, warm=0, busy=args.busy, most=dict.fromkeys(once, 1))


def main() -> None:
    parser = options(__doc__, devices=True)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW",
                        help=f"of {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=30, help="for the rounds of a row")
    args = parse(parser)
    setting = f"random weights, float32, {clock(args.busy, args.device)}"
    record = Record("encoders", COLUMNS, setting, args)
    for name in args.rows:
        row = replace(ROWS[name], device=args.device)
        if args.quick:
            row = replace(row, length=min(row.length, COMPARED))
        record.part(name, partial(measure, row, args))
    record.done()


if __name__ == "__main__":
    main()
