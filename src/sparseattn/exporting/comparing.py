"""A file, or another model, beside the model that it was made of: what both compute, how fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from sparseattn.bench.timing import alternate
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.formats import Run, format_of, program_of
from sparseattn.exporting.int8 import Batches, calibrated
from sparseattn.models.encoder import encoder_of, evaluating, owner_of, random_batch
from sparseattn.plan import Plan

#: Lengths at which a file is compared with its model: odd ones, one below each block, a long one.
LENGTHS = (5, 31, 97, 256, 1027)


def lengths_for(longest: int | None) -> tuple[int, ...]:
    """Lengths to compare at; the last is the longest that a model takes, if that is short."""
    lengths = tuple(n for n in LENGTHS if n <= (longest or n))
    return lengths if longest is None or lengths == LENGTHS else (*lengths, longest)


def random_batches(
    model: Any, inputs: Sequence[str], lengths: Iterable[int]
) -> Iterator[dict[str, Tensor]]:
    """Random tokens of each length, one text and three, padded on each side."""
    for length in lengths:
        yield _batch(model, inputs, [length])
        batch = _batch(model, inputs, [max(1, length >> row) for row in range(3)])
        yield batch
        yield {name: column.flip(1) for name, column in batch.items()}


def _batch(model: Any, inputs: Sequence[str], lengths: Sequence[int]) -> dict[str, Tensor]:
    columns = random_batch(encoder_of(model), lengths)
    blank = torch.zeros_like(columns["input_ids"])
    return {name: columns.get(name, blank).cpu() for name in inputs}


def outputs_of(model: Any) -> Run:
    """A torch model as a function from a batch to its outputs by name."""
    owner = owner_of(model)

    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        there = {name: column.to(owner.device) for name, column in batch.items()}
        with evaluating(owner), torch.no_grad():
            output = owner(**there, return_dict=True)
        return {name: value.cpu() for name, value in output.items() if isinstance(value, Tensor)}

    return run


def compared(model: Any, run: Run, batches: Iterable[Mapping[str, Tensor]]) -> tuple[float, float]:
    """Compares what a file, or another model, computes for batches with what a model does.

    Returns:
        The largest difference, and the root mean square as a share of that of the outputs.
    """
    own = outputs_of(model)
    parts = [part for batch in batches for part in _differences(own, run, batch)]
    worst, apart, whole = torch.stack(parts, dim=1)
    return float(worst.max()), float((apart.sum() / whole.sum()).sqrt())


def _differences(own: Run, run: Run, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Of each output the largest difference, its sum of squares, and that of the output."""
    expected, mask = own(batch), batch["attention_mask"].bool()
    for name, value in run(batch).items():
        stock, apart = expected[name].double(), value.double() - expected[name]
        # A text's one output is often that of the first place: nothing where it is padding.
        kept = mask if apart.shape[:2] == mask.shape else mask[:, 0]
        stock, apart = stock[kept], apart[kept]
        apart = apart.nan_to_num(torch.inf, torch.inf, -torch.inf)
        yield torch.stack([apart.abs().max(), apart.square().sum(), stock.square().sum()])


def times_against_dense(
    model: Any,
    path: Path,
    lengths: Sequence[int],
    int8: bool = False,
    calibration: Batches | None = None,
    repeats: int = 5,
) -> Iterator[tuple[int, float, float]]:
    """Times a file against the same model without a plan, exported likewise; they take turns.

    Args:
        model: The model that was exported.
        path: Its file.
        lengths: Tokens of the one text of a batch.
        int8: Whether the file's linear layers compute in 8-bit integers.
        calibration: The texts that gave their scales.
        repeats: Timed rounds; the median counts.

    Yields:
        The length, and the seconds of the dense file and of this one.
    """
    if not lengths:
        return
    dense, form = Exportable(model, Plan.of("full()")), format_of(path)
    with TemporaryDirectory() as folder:
        stock = Path(folder, path.name)
        form.write(program_of(dense), stock, "")
        if int8 and form.quantize is not None:
            texts = calibration and calibrated(calibration, dense.inputs, dense.longest)
            form.quantize(stock, texts)
        runs = {"dense": stock, "sparse": path}
        opened = {name: form.run(file, None) for name, file in runs.items()}
        for length in lengths:
            batch = _batch(model, dense.inputs, [length])
            times = alternate({name: partial(run, batch) for name, run in opened.items()}, repeats)
            yield length, times["dense"], times["sparse"]
