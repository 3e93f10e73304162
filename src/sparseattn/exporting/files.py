"""What is written of a sparse model and compared with it: exported files, and folders in int8."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from sparseattn.errors import DataError, PlanError, SparseAttnError, first_line, reason
from sparseattn.exporting.comparing import compared, lengths_for, outputs_of, random_batches
from sparseattn.exporting.exportable import Exportable, input_names
from sparseattn.exporting.formats import Format, format_of, program_of
from sparseattn.exporting.int8 import Batches, calibrated, remark
from sparseattn.models.card import write_card
from sparseattn.models.encoder import encoder_of, owner_of
from sparseattn.models.int8 import Int8Linear, quantize
from sparseattn.models.load import quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.saving import new_folder, tokenizer_of, writing
from sparseattn.models.sparsify import plan_of
from sparseattn.words import counted

#: The largest difference that single precision explains.
_CLOSE = 1e-3
#: The largest difference that 8-bit integers explain, as a share of the outputs: root mean squares.
_CLOSE_INT8 = 0.2
#: Of so many texts for calibration one gives no scales, and shows how good they are.
_HELD = 5
_MEGA = 1e6
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
    spans: Mapping[str, int]
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
        if self.int8 and (note := remark()):
            lines.append(note)
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
        inputs, lengths = exportable.inputs, lengths_for(exportable.longest)
        given = held = None
        if calibration is not None:
            texts = calibrated(calibration, inputs, exportable.longest)
            held = texts[::_HELD]
            given = [text for at, text in enumerate(texts) if at % _HELD]
        _write(form, exportable, draft)
        if form.quantize is not None and int8:
            form.quantize(draft, given)
        run = form.run(draft, None)
        difference, share = compared(model, run, random_batches(model, inputs, lengths))
        on_texts = compared(model, run, held)[1] if held else None
        if int8:
            _check_int8(share, on_texts)
        elif not difference < _CLOSE:
            raise DataError(
                f"the exported file differs from the model by {difference:.2g}, so it was not kept"
            )
    scales = "found for each token"
    if given is not None:
        scales = f"fixed, from {counted(len(given), 'text')}"
    spans: Counter[str] = Counter()
    for heads, span in (group for layer in exportable.layers for group in layer):
        spans[str(span)] += len(heads)
    return Exported(
        path, form.name, inputs, exportable.longest, spans, lengths, difference, share, on_texts,
        f"linear layers in int8; scales of their inputs: {scales}" if int8 else "",
    )  # fmt: skip


def _check_int8(share: float, on_texts: float | None) -> None:
    """Fixed scales are for texts like those that gave them, so others of these decide."""
    decides = share if on_texts is None else on_texts
    if not decides < _CLOSE_INT8:
        whose = "random tokens" if on_texts is None else "texts that gave no scales"
        raise DataError(
            f"the int8 file differs from the model by {decides:.0%} of its outputs on {whose}, so "
            f"it was not kept{'' if on_texts is None else f': {_ADVICE}'}"
        )


def _write(form: Format, exportable: Exportable, path: Path) -> None:
    try:
        form.write(program_of(exportable), path, exportable.record.model_dump_json())
    except (OSError, SparseAttnError):
        raise
    except Exception as error:
        name = type(exportable.model).__name__
        raise PlanError(f"{name} cannot be exported to {form.name}: {first_line(error)}") from error


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


def quantize_folder(model: Any, name: str, out: Path, texts: Batches | None) -> Iterator[str]:
    """Quantizes a sparse model and saves it with its tokenizer; yields what to tell the user.

    Args:
        model: A model that carries a plan.
        name: Where it came from.
        out: A new or empty folder; it is written whole or not at all.
        texts: What to compare the outputs on; random tokens by default.

    Raises:
        DataError: `out` cannot be written to or holds something.
        UnsupportedModelError: See `quantize`.
    """
    plan, owner = plan_of(model), owner_of(model)
    with new_folder(out) as draft, quiet():
        low = quantize(deepcopy(model))
        layers = [module for module in low.modules() if isinstance(module, Int8Linear)]
        whole = sum(parameter.numel() for parameter in model.parameters())
        lines = [
            f"{len(layers)} linear layers in int8: {sum(x.weight.numel() for x in layers):,} of "
            f"{whole:,} weights; {_megabytes(low)} in memory instead of {_megabytes(model)}"
        ]
        where = counted(len(texts), "text") if texts else "random tokens"
        lengths = lengths_for(max_tokens(encoder_of(model).config))
        batches = texts or random_batches(model, input_names(owner), lengths)
        share = compared(model, outputs_of(low), batches)[1]
        lines.append(f"outputs on {where} differ by {share:.1%} of theirs (root mean squares)")
        with writing(out):
            low.save_pretrained(str(draft))
            if model is owner and (tokenizer := tokenizer_of(name)) is not None:
                tokenizer.save_pretrained(draft)
            if plan is not None:
                write_card(draft, plan, name, lines)
            size = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())
        yield from lines
    yield (
        f"wrote {out}: {size / _MEGA:.1f} MB, as large as before, so that any program can read it; "
        f"load it with sparseattn.load({str(out)!r})"
    )


def _megabytes(model: Any) -> str:
    tensors = [*model.parameters(), *model.buffers()]
    return f"{sum(x.numel() * x.element_size() for x in tensors) / _MEGA:.1f} MB"
