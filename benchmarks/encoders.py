"""Whole encoders: sparse against the floor, the stock model, Longformer and BigBird (rivals.py).

Before a row is timed, outputs and gradients of the sparse encoder are compared with the `reference`
backend on the same weights, at up to 1024 tokens of each text and without dropout, and its outputs
with the `masked` backend at the full length; a difference ends the row. Then the contestants take
turns in one process: a round that is not counted, and as many more as fit in the time for a row.
The results are medians, and the sparse encoder's time as a multiple of each other one's. They go to
benchmarks/results/encoders.json and .md.

    python benchmarks/encoders.py [--rows ROW ...] [--seconds S] [--quick] [--busy] [--again]
                                  [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import BertModel

import sparseattn as sa
from options import options, prepare
from record import Record, clock
from rivals import HEADS, ROWS, Row, bert, bigbird, longformer, states
from sparseattn.bench.compare import differences, results
from sparseattn.bench.timing import bound, floor, samples, step
from sparseattn.models.state import attached_state

COLUMNS = (
    *("what", "sparse", "floor", "bound", "stock", "Longformer", "BigBird"),
    *("rounds", "difference"),
)
#: Longest text whose gradients are compared with the definition's.
COMPARED = 1024
#: Largest differences: of outputs, and of gradients as a share of the largest in their tensor.
OUTPUTS, GRADIENTS = 1e-4, 1e-3
#: Bytes that SDPA keeps on a CPU for each score when it drops weights in training (measured).
KEPT = 12.5
#: Rounds of a row, whatever time they take.
LEAST, MOST = 2, 15


# --- the contestants


def contestants(row: Row, names: Iterable[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    """What takes turns, by name; floor and bound must have been lent."""
    stock = bert(row)
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "sparse": lambda: partial(states, sparsified(row, stock, "auto")),
        "floor": lambda: partial(states, sparsified(row, stock, "floor")),
        "bound": lambda: partial(states, sparsified(row, stock, "bound")),
        "stock": lambda: partial(states, stock),
        "longformer": partial(longformer, row),
        "bigbird": partial(bigbird, row),
    }
    return {name: makers[name]() for name in names}


# --- the gate


def checked(row: Row, ids: Tensor) -> tuple[float, str]:
    """Compares the sparse encoder with the definition.

    Returns:
        The largest difference, of outputs and of gradients as a share of the largest in their
        tensor, and the backend that `auto` takes at the full length.
    """
    model = bert(row)
    chosen = backend_of(row, model, ids)
    short = ids[:, :COMPARED]
    ours, wanted = (computed(row, model, name, short) for name in (chosen, "reference"))
    found = differences(ours, wanted)
    worst = max(
        _near(off, limit, row) for off, limit in zip(found, (OUTPUTS, GRADIENTS), strict=True)
    )
    if row.length > COMPARED and chosen != "masked":
        with torch.no_grad():
            ours, wanted = (
                states(sparsified(row, model, name).eval(), ids) for name in (chosen, "masked")
            )
        worst = max(worst, _near(float((ours - wanted).abs().max()), OUTPUTS, row))
    return worst, chosen


def sparsified(row: Row, model: BertModel, backend: str) -> BertModel:
    # A copy: sparsify() writes the plan into the config.
    return sa.sparsify(deepcopy(model), row.plan, backend=backend)


def backend_of(row: Row, model: BertModel, ids: Tensor) -> str:
    """What `auto` picks for the row."""
    sparse = sparsified(row, model, "auto")
    with torch.set_grad_enabled(row.trains):
        states(sparse, ids)
    names = {name for name, _ in attached_state(sparse).last.chosen.values()}
    if len(names) > 1:
        sys.exit(f"auto takes several backends ({', '.join(sorted(names))}) for {row.work}")
    return names.pop()


def computed(row: Row, model: BertModel, backend: str, ids: Tensor) -> list[Tensor]:
    """The output and the gradients of all parameters, without dropout."""
    sparse = sparsified(row, model, backend).eval()
    return results(partial(states, sparse, ids), sparse.parameters())


def _near(off: float, limit: float, row: Row) -> float:
    if not off < limit:
        sys.exit(f"not timed: {row.work} differs from the definition by {off:.2g} ({limit:g})")
    return off


# --- the times


def timed(row: Row, ids: Tensor, given: argparse.Namespace) -> dict[str, Any]:
    """All times of a row, by contestant, and whether the stock model's is extrapolated."""
    slow = row.device == "cpu" and row.trains and row.dropout > 0 and row.length > COMPARED
    short = slow and not _fits(row)
    names = [name for name in ("sparse", *row.most) if not (short and name == "stock")]
    with ExitStack() as stack:
        stack.enter_context(floor())
        stack.enter_context(bound())
        runs = contestants(row, names)
        steps = {name: step(partial(run, ids), row.trains) for name, run in runs.items()}
        times = rounds(steps, given, {"stock"} if slow else set())
    if short:
        times["stock"] = [_extrapolated(row, ids, given.busy)]
    return {"times": times, "extrapolated": short}


def rounds(
    steps: dict[str, Callable[[], None]], given: argparse.Namespace, once: set[str]
) -> dict[str, list[float]]:
    """Times of steps that take turns for the time of a row; those that are slow, only once."""
    start = perf_counter()
    samples({n: s for n, s in steps.items() if n not in once}, 1, warm=0)
    took = perf_counter() - start
    count = given.rounds or min(MOST, max(LEAST, round(given.seconds / took)))
    return samples(steps, count, warm=0, busy=given.busy, most=dict.fromkeys(once, 1))


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


def measure(row: Row, given: argparse.Namespace) -> dict[str, Any]:
    """Compares, times, and writes a line."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 1000, (row.texts, row.length), generator=generator).to(row.device)
    difference, chosen = checked(row, ids)
    found = {"backend": chosen, "difference": difference, **timed(row, ids, given)}
    return {"rows": [line(row, found)], **found}


def line(row: Row, found: dict[str, Any]) -> list[str]:
    """A result as a line of the table."""
    medians = {name: 1000 * median(times) for name, times in found["times"].items()}
    sparse = medians.pop("sparse")
    cells = [row.work, f"{sparse:.1f} ms ({found['backend']})"]
    for name in ("floor", "bound", "stock", "longformer", "bigbird"):
        if name not in medians:
            cells.append("-")
            continue
        ratio, limit = sparse / medians[name], row.most[name]
        target = "" if limit is None else f" (at most {limit:g}: {_verdict(ratio, limit)})"
        note = " by its first 2 layers" if name == "stock" and found["extrapolated"] else ""
        cells.append(f"{medians[name]:.1f} ms{note}, {ratio:.3f}{target}")
    return [*cells, str(len(found["times"]["sparse"])), f"{found['difference']:.0e}"]


def _verdict(ratio: float, limit: float) -> str:
    return "met" if ratio <= limit else "missed"


def asked(argv: Iterable[str] | None = None) -> argparse.Namespace:
    parser = options(__doc__, devices=True)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW",
                        help=f"of {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=30, help="for the rounds of a row")
    parser.add_argument("--rounds", type=int, help="of every row, whatever time they take")
    given = parser.parse_args(argv)
    prepare(given)
    if given.quick:
        given.rounds = given.rounds or 1
    return given


def main() -> None:
    given = asked()
    where = clock(given.busy, given.device)
    how = f"random weights, float32, {where}{', quick' if given.quick else ''}"
    record = Record("encoders", COLUMNS, how, given.out, given.again)
    for name in given.rows:
        row = replace(ROWS[name], device=given.device)
        if given.quick:
            row = replace(row, length=min(row.length, COMPARED))
        record.part(name, partial(measure, row, given))
    record.done()


if __name__ == "__main__":
    main()
