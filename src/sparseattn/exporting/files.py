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

#: Lengths at which a file is compared with its model: odd ones, one below each block, a long one.
LENGTHS = (5, 31, 97, 256, 1027)
#: The largest difference that single precision explains.
_CLOSE = 1e-3
#: The largest difference that 8-bit integers explain, as a share of the outputs: root mean squares.
_CLOSE_INT8 = 0.2
#: Of so many texts for calibration one gives no scales, and shows how good they are.
_HELD = 5
_ADVICE = "give more and longer ones, like those to come, or none"


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
        on_texts: The same on those texts for calibration that gave no scales; None without any.
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
    on_texts: float | None = None
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
        if self.on_texts is not None:
            lines.append(f"on texts that gave no scales: {self.on_texts:.1%} of the outputs")
            if self.share >= _CLOSE_INT8:
                lines.append(f"note: texts unlike them may come out as random tokens; {_ADVICE}")
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
            fixed scales for the inputs of its layers, and becomes faster; one of five is kept back
            to see how good they are. Without them, and in ONNX, each token gets its own when the
            file runs.

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
        given = held = None
        if calibration is not None:
            texts = calibrated(calibration, exportable.inputs, exportable.longest)
            held = texts[::_HELD]
            given = [text for at, text in enumerate(texts) if at % _HELD]
        _write(form, exportable, draft)
        if form.quantize is not None and int8:
            with quietly():
                form.quantize(draft, given)
        lengths = lengths_for(exportable.longest)
        run = form.run(draft, None)
        random = random_batches(model, exportable.inputs, lengths)
        difference, share = compared(model, run, random)
        on_texts = compared(model, run, held)[1] if held else None
        if int8:
            _check_int8(share, on_texts)
        elif not difference < _CLOSE:
            raise DataError(
                f"the exported file differs from the model by {difference:.2g}, so it was not kept"
            )
    return Exported(
        path, form.name, exportable.inputs, exportable.longest, _counted(exportable), lengths,
        difference, share, on_texts, _described(given) if int8 else "",
    )  # fmt: skip


def lengths_for(longest: int | None) -> tuple[int, ...]:
    """Lengths to compare at; the last is the longest that a model takes, if that is short."""
    lengths = tuple(n for n in LENGTHS if n <= (longest or n))
    return lengths if longest is None or lengths == LENGTHS else (*lengths, longest)


def _check_int8(share: float, on_texts: float | None) -> None:
    """Fixed scales are for texts like those that gave them, so others of these decide."""
    decides = share if on_texts is None else on_texts
    if not decides < _CLOSE_INT8:
        whose = "random tokens" if on_texts is None else "texts that gave no scales"
        raise DataError(
            f"the int8 file differs from the model by {decides:.0%} of its outputs on {whose}, so "
            f"it was not kept{'' if on_texts is None else f': {_ADVICE}'}"
        )


def _described(given: Batches | None) -> str:
    scales = "found for each token"
    if given is not None:
        scales = f"fixed, from {counted(len(given), 'text')}"
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
            files = sorted(Path(folder).iterdir(), key=lambda file: file == draft)
            if len(files) > 1:  # killed between them, it is not there: never old beside new
                path.unlink(missing_ok=True)
            for file in files:
                shutil.move(file, path.parent / file.name)
    except OSError as error:
        raise DataError(f"cannot write {path}: {reason(error)}") from None


def compared(model: Any, run: Run, batches: Iterable[Mapping[str, Tensor]]) -> tuple[float, float]:
    """Compares what a file, or another model, computes for batches with what a model does.

    Returns:
        The largest difference, and the root mean square as a share of that of the outputs.
    """
    owner, before = owner_of(model), owner_of(model).training
    owner.eval()
    try:
        parts = [part for batch in batches for part in _differences(owner, run, batch)]
    finally:
        owner.train(before)
    worst, apart, whole = torch.stack(parts, dim=1)
    return float(worst.max()), float((apart.sum() / whole.sum()).sqrt())


def random_batches(
    model: Any, inputs: tuple[str, ...], lengths: Iterable[int]
) -> Iterator[dict[str, Tensor]]:
    """Random tokens of each length, one text and three, padded on each side."""
    for length in lengths:
        for texts, side in ((1, "right"), (3, "right"), (3, "left")):
            yield batch_of(model, inputs, texts, length, side)


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


def _differences(owner: Any, run: Run, batch: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Of each output the largest difference, its sum of squares, and that of the output."""
    with torch.no_grad():
        expected = owner(**batch, return_dict=True)
    mask = batch["attention_mask"].bool()
    for name, value in run(batch).items():
        stock, apart = expected[name].double(), value.double() - expected[name]
        # A text's one output is often that of the first place: nothing where it is padding.
        kept = mask if apart.shape[:2] == mask.shape else mask[:, 0]
        stock, apart = stock[kept], apart[kept]
        apart = apart.nan_to_num(torch.inf, torch.inf, -torch.inf)
        yield torch.stack([apart.abs().max(), apart.square().sum(), stock.square().sum()])
