"""`sparseattn learn`, `calibrate` and `probe`. Thin, and light to import: see `sparseattn.cli`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sparseattn.cli.help import examples
from sparseattn.models.names import DEFAULT

__all__ = ["calibrate", "learn", "probe"]

Model = Annotated[str, typer.Option(help="A folder, a Hub name or package:NAME.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; made if need be.")]
Radii = Annotated[
    str | None, typer.Option("--menu", help="Radii to choose from, such as 0,1,2,4,8,64.")
]
Elastic = Annotated[bool, typer.Option(help="Radii are shares of a text's length.")]
Shared = Annotated[str, typer.Option(help="A radius for each head, or for each layer.")]
Form = Annotated[str, typer.Option(help="regular: a radius a head; irregular: a token position.")]
Dense = Annotated[str, typer.Option(help="Layers that stay dense, such as ':2'.")]
Worth = Annotated[str, typer.Option(help="What calibration keeps: attention, or output.")]
Globals = Annotated[
    str, typer.Option("--globals", help="Kinds: cls, or cls,sep; how many first tokens; or none.")
]
Largest = Annotated[int | None, typer.Option(help="A radius that no head exceeds, in tokens.")]


def learn(
    task: Annotated[
        str,
        typer.Option(help="A study file, of which task and training are used; or a name: sst2."),
    ],
    sparsity: Annotated[str, typer.Option(help="What to reach, such as 0.8; or several: 0.6,0.8.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="Instead of the file's model.")] = None,
    menu: Radii = None,
    elastic: Elastic = False,
    shared: Shared = "head",
    global_tokens: Globals = "cls",
    form: Form = "regular",
    dense: Dense = "",
    largest: Largest = None,
    start: Annotated[
        str, typer.Option("--from", help="Start dense, or from calibrated degrees.")
    ] = "dense",
    worth: Worth = "attention",
    soft: Annotated[
        float, typer.Option(help="Share of the steps in which degrees are learned.")
    ] = 0.5,
    over: Annotated[
        str, typer.Option(help="Texts that the sparsity is to hold over: train, or evaluation.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of training and of irregular plans.")] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as training.epochs=1; repeatable."),
    ] = None,
) -> None:
    """Learn how far each head needs to see, for a sparsity you state.

    Stopped, it goes on when it is called again in the same way.
    """
    from sparseattn.cli.degree_jobs import learn_task

    options = _options(menu, elastic, shared, global_tokens, form, dense, largest)
    targets = [_number(part, "sparsity") for part in sparsity.split(",")]
    options |= {"start": start, "worth": worth, "soft": soft, "over": over}
    for line in learn_task(task, targets, out, model, seed, options, changes or ()):
        typer.echo(line)


def calibrate(
    text: Annotated[Path, typer.Option(help="Unlabelled text, a text a line (.txt or .tsv).")],
    sparsity: Annotated[float, typer.Option(help="What to reach on these texts, such as 0.8.")],
    out: Annotated[Path, typer.Option(help="The plan's file, JSON.")] = Path("plan.json"),
    model: Model = DEFAULT,
    menu: Radii = None,
    elastic: Elastic = False,
    shared: Shared = "head",
    global_tokens: Globals = "cls",
    form: Form = "regular",
    dense: Dense = "",
    largest: Largest = None,
    worth: Worth = "attention",
) -> None:
    """Find the degrees that keep the most of a model's own attention. No training."""
    from sparseattn.cli.degree_jobs import calibrate_text

    options = _options(menu, elastic, shared, global_tokens, form, dense, largest)
    options["worth"] = worth
    for line in calibrate_text(text, sparsity, out, model, options):
        typer.echo(line)


def probe(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Such as 'similarity(k=3) - sentence()'.")
    ],
    task: Annotated[
        str | None,
        typer.Option(help="A study file or a name such as sst2: 256 of its training texts."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Or a file, a text a line (.txt or .tsv): 512 of them.")
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="The first two columns of --text are a pair.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Instead of the task's, or of the packaged MiniLM.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write all heads into this CSV.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as task.max_length=64; repeatable."),
    ] = None,
) -> None:
    """Measure how much of a model's own attention falls on a pattern's pairs, head by head."""
    from rich.console import Console

    from sparseattn.cli.degree_jobs import probe_task, probe_text
    from sparseattn.errors import DataError

    if (task is None) == (text is None):
        raise DataError("probe looks at the texts of --task or of --text; give one of them")
    if text is None:
        if pairs:
            raise DataError("--pairs goes with --text; a task says itself what its texts are")
        told = probe_task(pattern, str(task), out, model, changes or ())
    else:
        if changes:
            raise DataError("--set goes with --task")
        told = probe_text(pattern, text, out, model or DEFAULT, pairs)
    for one in told:
        if isinstance(one, str):
            typer.echo(one)
        else:
            Console(highlight=False).print(one)


_EXAMPLES: dict[Callable[..., None], tuple[str, ...]] = {
    learn: (
        "learn --task sst2 --sparsity 0.8 --out runs/learned",
        "learn --task studies/smoke.yaml --sparsity 0.7,0.9 --out runs/two",
    ),
    calibrate: (
        "calibrate --text texts.txt --sparsity 0.8 --out plan.json",
        "calibrate --text texts.txt --sparsity 0.9 --model bert-base-uncased",
    ),
    probe: (
        "probe 'similarity(k=1) - sentence()' --text pairs.tsv --pairs",
        "probe 'neighbor(radius=2)' --task sst2 --out heads.csv",
    ),
}


def mount(app: typer.Typer) -> None:
    """Adds the commands to an app."""
    for command, lines in _EXAMPLES.items():
        app.command(epilog=examples(*lines))(command)


def _options(
    menu: str | None,
    elastic: bool,
    shared: str,
    global_tokens: str,
    form: str,
    dense: str,
    largest: int | None,
) -> dict[str, object]:
    kinds: object = () if global_tokens == "none" else tuple(global_tokens.split(","))
    if global_tokens.isdecimal():
        kinds = int(global_tokens)
    radii = None
    if menu is not None:
        numbers = [_number(part, "menu") for part in menu.split(",")]
        radii = tuple(numbers) if elastic else tuple(int(n) if n == int(n) else n for n in numbers)
    return {
        "menu": radii,
        "elastic": elastic,
        "shared": shared,
        "globals": kinds,
        "form": form,
        "dense": dense,
        "largest": largest,
    }


def _number(text: str, what: str) -> float:
    from sparseattn.errors import PlanError

    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{what} {text!r} is not a number") from None
