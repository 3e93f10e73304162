"""How fast an exported file is, beside the dense model in the same runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sparseattn.bench.timing import alternate
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.files import batch_of
from sparseattn.exporting.formats import FORMATS, Run, program_of
from sparseattn.plan import Plan


def against_dense(
    model: Any, path: Path, form: str, lengths: Sequence[int], repeats: int = 5
) -> Iterator[tuple[int, float, float]]:
    """Times a file against the same model without a plan, exported likewise; they take turns.

    Args:
        model: The model that was exported.
        path: Its file.
        form: The file's format.
        lengths: Tokens of the one text of a batch.
        repeats: Timed rounds; the median counts.

    Yields:
        The length, and the seconds of the dense file and of this one.
    """
    dense = Exportable(model, Plan.of("full()"))
    with TemporaryDirectory() as folder:
        stock = Path(folder, path.name)
        FORMATS[form].write(program_of(dense), stock, "")
        runs: dict[str, Run] = {
            "dense": FORMATS[form].run(stock, None),
            "sparse": FORMATS[form].run(path, None),
        }
        for length in lengths:
            batch = batch_of(model, dense.inputs, 1, length)
            times = alternate({name: partial(run, batch) for name, run in runs.items()}, repeats)
            yield length, times["dense"], times["sparse"]
