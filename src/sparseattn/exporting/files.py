"""Exporting a sparse model to a file, and comparing the file with the model."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
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
from sparseattn.exporting.int8 import Batches, calibrated, quietly
from sparseattn.models.encoder import encoder_of, owner_of, random_batch
from sparseattn.models.load import quiet
from sparseattn.words import counted

__all__ = ["Exported", "batch_of", "compared", "export"]

#: Lengths at which a file is compared with its model: odd ones, one below each block, a long one.
LENGTHS = (5, 31, 97, 256, 1027)
#: The largest difference that single precision explains.
_CLOSE = 1e-3
#: The largest difference that 8-bit integers explain, as a share of the outputs: root mean squares.
_CLOSE_INT8 = 0.2


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
        share: The root mean square of all differences as a share of that of the outputs.
        int8: How its linear layers compute in 8-bit integers; empty where they do not.
    """

    path: Path
    format: str
    inputs: tuple[str, ...]
    longest: int | None
    spans: dict[str, int]
    lengths: tuple[int, ...]
    difference: float
    share: float
    int8: str = ""

    def __str__(self) -> str:
        """What stands in the file, and what was compared."""
        limit = "any length" if self.longest is None else f"up to {self.longest:,} tokens"
        lines = [f"{self.path}: {self.format}, any batch, {limit}; inputs {', '.join(self.inputs)}"]
        lines += [f"{heads} heads: {span}" for span, heads in self.spans.items()]
        lines += [self.int8] * bool(self.int8)
        lengths = ", ".join(f"{length:,}" for length in self.lengths)
        share = f", {self.share:.1%} of the outputs" if self.int8 else ""
        lines.append(
            f"largest difference from the model: {self.difference:.1e}{share} (at {lengths} random "
            "tokens, 1 and 3 texts, padded left and right)"
        )
        return "\n".join(lines)


def export(
    model: Any,
    path: str | Path,
    to: str | None = None,
    *,
    int8: bool = False,
    calibration: Iterable[Mapping[str, Tensor]] | None = None,
) -> Exported:
    """Exports a sparse model to a file whose attention is as sparse as the plan.

    The file computes with standard operators, takes any batch and length, and respects padding. It
    is compared with the model before it takes its place.

    Args:
        model: A model that `sparsify` put a plan on, with or without a head; of a wrapper the
            transformers model inside.
        path: The file: `.onnx`, `.xml` (OpenVINO, with a `.bin` beside it) or `.pt2` (torch).
        to: The format, `onnx`, `openvino` or `torch`, if it is to be checked against the path.
        int8: Whether linear layers compute in 8-bit integers (ONNX and OpenVINO). Embeddings,
            attention itself and heads do not.
        calibration: Tokenised texts, such as those to come, on which an int8 file of OpenVINO gets
            fixed scales for the inputs of its layers, and becomes faster. Without them, and in
            ONNX, each token gets its own when the file runs.

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
    form.check_installed(int8)
    if calibration is not None and not int8:
        raise DataError("texts for calibration are for int8 files; give int8, too")
    if calibration is not None and not form.calibrates:
        raise DataError(
            f"an int8 file of {form.name} finds its scales for each token when it runs, and takes "
            "no texts for calibration; leave them out"
        )
    with _draft(path) as draft, quiet():
        exportable = Exportable(model)
        batches = None
        if calibration is not None:
            batches = calibrated(calibration, exportable.inputs, exportable.longest)
        _write(form, exportable, draft)
        if form.quantize is not None and int8:
            with quietly():
                form.quantize(draft, batches)
        lengths = tuple(n for n in LENGTHS if n <= (exportable.longest or n))
        if exportable.longest and len(lengths) < len(LENGTHS):
            lengths = (*lengths, exportable.longest)
        run = form.run(draft, None)
        advice = "" if batches is None else "; leave out the texts, or give more and longer ones"
        difference, share = compared(model, run, exportable.inputs, lengths, int8, advice)
    return Exported(
        path, form.name, exportable.inputs, exportable.longest, _counted(exportable), lengths,
        difference, share, _described(batches) if int8 else "",
    )  # fmt: skip


def _described(batches: Batches | None) -> str:
    scales = "found for each token"
    if batches is not None:
        scales = f"fixed, from {counted(sum(len(b['input_ids']) for b in batches), 'text')}"
    return f"linear layers in int8; scales of their inputs: {scales}"


def _write(form: Format, exportable: Exportable, path: Path) -> None:
    try:
        form.write(program_of(exportable), path, exportable.record.model_dump_json())
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


def compared(
    model: Any,
    run: Run,
    inputs: tuple[str, ...],
    lengths: tuple[int, ...],
    int8: bool = False,
    advice: str = "",
) -> tuple[float, float]:
    """Compares what a file computes with its model, at each length, batch and side of padding.

    Returns:
        The largest difference, and the root mean square as a share of that of the outputs.

    Raises:
        DataError: They differ by more than single precision explains, or 8-bit integers.
    """
    owner, before = owner_of(model), owner_of(model).training
    parts: list[Tensor] = []
    owner.eval()
    try:
        for length in lengths:
            for texts, side in ((1, "right"), (3, "right"), (3, "left")):
                batch = batch_of(model, inputs, texts, length, side)
                parts += _differences(owner, run, batch)
    finally:
        owner.train(before)
    apart, whole = (torch.stack([part[at] for part in parts]) for at in (1, 2))
    worst, share = float(max(p[0] for p in parts)), float((apart.sum() / whole.sum()).sqrt())
    if not (share < _CLOSE_INT8 if int8 else worst < _CLOSE):
        by = f"{share:.0%} of its outputs" if int8 else f"{worst:.2g}"
        raise DataError(
            f"the exported file differs from the model by {by}, so it was not kept{advice}"
        )
    return worst, share


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


def _differences(owner: Any, run: Run, batch: dict[str, Tensor]) -> Iterator[Tensor]:
    """Of each output the largest difference, its sum of squares, and that of the output."""
    with torch.no_grad():
        expected = owner(**batch, return_dict=True)
    mask = batch["attention_mask"].bool()
    for name, value in run(batch).items():
        stock, apart = expected[name].double(), value.double() - expected[name]
        if apart.shape[:2] == mask.shape:
            stock, apart = stock[mask], apart[mask]
        apart = apart.nan_to_num(torch.inf, torch.inf, -torch.inf)
        yield torch.stack([apart.abs().max(), apart.square().sum(), stock.square().sum()])
