"""Exporting a sparse model to a file, and comparing the file with the model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from sparseattn.errors import DataError, PlanError, SparseAttnError, first_line, reason
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.formats import Format, Run, format_of, program_of
from sparseattn.models.encoder import encoder_of, owner_of, random_batch
from sparseattn.models.load import quiet

__all__ = ["Exported", "batch_of", "export", "largest_difference"]

#: Lengths at which a file is compared with its model: odd ones, one below each block, a long one.
LENGTHS = (5, 31, 97, 256, 1027)
#: The largest difference that single precision explains.
_CLOSE = 1e-3


@dataclass(frozen=True)
class Exported:
    """What was exported; `print` shows it.

    Attributes:
        path: The file.
        format: Its format's name.
        inputs: Names of its inputs.
        longest: The most tokens that it takes; None without a limit.
        spans: What the heads became: each kind once, with the number of heads.
        lengths: Lengths at which it was compared with the model.
        difference: The largest difference of any output for a real token.
    """

    path: Path
    format: str
    inputs: tuple[str, ...]
    longest: int | None
    spans: dict[str, int]
    lengths: tuple[int, ...]
    difference: float

    def __str__(self) -> str:
        """What stands in the file, and what was compared."""
        limit = "any length" if self.longest is None else f"up to {self.longest:,} tokens"
        lines = [f"{self.path}: {self.format}, any batch, {limit}; inputs {', '.join(self.inputs)}"]
        lines += [f"{heads} heads: {span}" for span, heads in self.spans.items()]
        lengths = ", ".join(f"{length:,}" for length in self.lengths)
        lines.append(
            f"largest difference from the model: {self.difference:.1e} (at {lengths} tokens, 1 and "
            "3 texts, padded left and right)"
        )
        return "\n".join(lines)


def export(model: Any, path: str | Path, to: str | None = None) -> Exported:
    """Exports a sparse model to a file whose attention is as sparse as the plan.

    The file computes with standard operators, takes any batch and length, and respects padding. It
    is compared with the model before it takes its place.

    Args:
        model: A model that `sparsify` put a plan on, with or without a head; of a wrapper the
            transformers model inside.
        path: The file: `.onnx`, `.xml` (OpenVINO, with a `.bin` beside it) or `.pt2` (torch).
        to: The format, `onnx`, `openvino` or `torch`, if it is to be checked against the path.

    Returns:
        What was exported.

    Raises:
        MissingExtraError: The format's packages are not installed.
        PlanError: There is no plan, or it cannot be exported.
        UnsupportedModelError: The model cannot be exported.
        DataError: The path cannot be written, or the file computes something else.
    """
    path = Path(path)
    form = format_of(path, to)
    form.check_installed()
    with _draft(path) as draft, quiet():
        exportable = Exportable(model)
        _write(form, exportable, draft)
        lengths = tuple(n for n in LENGTHS if n <= (exportable.longest or n))
        if exportable.longest and len(lengths) < len(LENGTHS):
            lengths = (*lengths, exportable.longest)
        difference = largest_difference(model, form.run(draft, None), exportable.inputs, lengths)
    return Exported(
        path, form.name, exportable.inputs, exportable.longest, _counted(exportable), lengths,
        difference,
    )  # fmt: skip


def _write(form: Format, exportable: Exportable, path: Path) -> None:
    try:
        form.write(program_of(exportable), path)
    except SparseAttnError:
        raise
    except Exception as error:
        name = type(exportable.model).__name__
        raise PlanError(f"{name} cannot be exported to {form.name}: {first_line(error)}") from error


def _counted(exportable: Exportable) -> dict[str, int]:
    counts: dict[str, int] = {}
    for groups in exportable.layers:
        for heads, span in groups:
            counts[str(span)] = counts.get(str(span), 0) + len(heads)
    return counts


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A path in a folder of its own; its files take their places if nothing goes wrong."""
    if path.is_dir():
        raise DataError(f"cannot write {path}: it is a folder")
    try:
        with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            draft = Path(folder, path.name)
            yield draft
            for file in sorted(Path(folder).iterdir(), key=lambda file: file == draft):
                shutil.move(file, path.parent / file.name)
    except OSError as error:
        raise DataError(f"cannot write {path}: {reason(error)}") from None


def largest_difference(
    model: Any, run: Run, inputs: tuple[str, ...], lengths: tuple[int, ...]
) -> float:
    """Compares what a file computes with its model, at each length, batch and side of padding.

    Raises:
        DataError: They differ by more than single precision explains.
    """
    owner, worst = owner_of(model), 0.0
    before = owner.training
    owner.eval()
    try:
        for length in lengths:
            for texts, side in ((1, "right"), (3, "right"), (3, "left")):
                batch = batch_of(model, inputs, texts, length, side)
                worst = max(worst, _difference(owner, run, batch))
    finally:
        owner.train(before)
    if not worst < _CLOSE:
        raise DataError(
            f"the exported file differs from the model by {worst:.2g}, so it was not kept"
        )
    return worst


def batch_of(
    model: Any, inputs: tuple[str, ...], texts: int, length: int, side: str = "right"
) -> dict[str, Tensor]:
    """A batch of random tokens; the first text has the full length, the others less and less.

    Args:
        model: Whose words they are.
        inputs: Names of the columns.
        texts: Texts of the batch.
        length: Tokens of the longest.
        side: Where the others are padded.
    """
    columns = random_batch(encoder_of(model), [max(1, length >> row) for row in range(texts)])
    if side == "left":
        columns = {name: column.flip(1) for name, column in columns.items()}
    blank = torch.zeros_like(columns["input_ids"])
    return {name: columns.get(name, blank) for name in inputs}


def _difference(owner: Any, run: Run, batch: dict[str, Tensor]) -> float:
    with torch.no_grad():
        expected = owner(**batch, return_dict=True)
    mask, worst = batch["attention_mask"].bool(), 0.0
    for name, value in run(batch).items():
        apart = (value - expected[name]).abs()
        if apart.shape[:2] == mask.shape:
            apart = apart[mask]
        worst = max(worst, float(apart.max())) if bool(apart.isfinite().all()) else float("inf")
    return worst
