"""`sparseattn bench`: what a plan would save, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparseattn.bench.measure import Measurement
    from sparseattn.bench.predict import Forecast

__all__ = ["app"]

app = typer.Typer(
    name="bench",
    help="Say how fast a plan makes a model, before training (predict) or by running it (run).",
    no_args_is_help=True,
)

Model = Annotated[
    str, typer.Argument(help="Folder, Hub name or package:NAME; only its config is read.")
]
PlanText = Annotated[str, typer.Option("--plan", help="A pattern, such as 'neighbor(radius=64)'.")]
Lengths = Annotated[str, typer.Option(help="Tokens a text, separated by commas.")]
Texts = Annotated[int, typer.Option("--batch", min=1, help="Texts a batch.")]
Train = Annotated[bool, typer.Option("--train", help="Forward and backward, dropout included.")]
Extend = Annotated[bool, typer.Option("--extend", help="Allow more tokens than positions.")]

Busy = Annotated[
    bool, typer.Option("--busy", help="Processor time of one thread: for a machine under load.")
]


@app.command()
def predict(
    model: Model,
    plan: PlanText,
    lengths: Lengths = "128,512,2048",
    batch: Texts = 1,
    train: Train = False,
    extend: Extend = False,
    busy: Busy = False,
) -> None:
    """Predict the speed-up of a plan from a few short runs, without weights or training."""
    from sparseattn.bench.models import load
    from sparseattn.bench.predict import Predictor, pays_from
    from sparseattn.plan import Plan

    wanted = _parsed(lengths)
    _single(busy)
    subject = load(model, max(wanted), train, extend)
    predictor = Predictor(subject, Plan.of(plan), batch, train, busy)
    _show([predictor.at(length) for length in wanted], "predicted", train)
    start = pays_from(predictor)
    typer.echo(
        "it pays at no length up to 32,768 tokens"
        if start is None
        else f"it pays (5% or more) from about {start:,} tokens a text"
    )


@app.command()
def run(
    model: Model,
    plan: PlanText,
    lengths: Lengths = "128,512,2048",
    batch: Texts = 1,
    train: Train = False,
    extend: Extend = False,
    busy: Busy = False,
) -> None:
    """Measure the speed-up of a plan, after checking its outputs against the definition."""
    from sparseattn.bench.measure import measure
    from sparseattn.bench.models import load
    from sparseattn.plan import Plan

    wanted = _parsed(lengths)
    _single(busy)
    subject = load(model, max(wanted), train, extend)
    _show([measure(subject, Plan.of(plan), n, batch, busy) for n in wanted], "measured", train)


def _parsed(lengths: str) -> list[int]:
    try:
        found = [int(part) for part in lengths.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--lengths {lengths!r} is no list of lengths such as 128,512")
    return found


def _single(busy: bool) -> None:
    if busy:
        import torch

        torch.set_num_threads(1)


def _show(rows: list[Forecast] | list[Measurement], how: str, train: bool) -> None:
    import torch

    what = "a training step (forward and backward)" if train else "inference"
    typer.echo(f"{how}: {what}, {torch.get_num_threads()} threads, milliseconds a batch")
    typer.echo("length    stock   sparse  no attention  attention's share  speed-up  backend")
    for row in rows:
        typer.echo(
            f"{row.length:6d} {1000 * row.dense:8.1f} {1000 * row.sparse:8.1f} "
            f"{1000 * row.rest:13.1f} {row.share:18.0%} {row.speedup:8.2f}x  "
            f"{', '.join(row.backends)}"
        )
