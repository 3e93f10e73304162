"""`sparseattn study ...`. Thin, and light to import: see `sparseattn.cli`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseattn.cli.options import Changes, examples, show, working
from sparseattn.errors import MissingExtraError
from sparseattn.words import counted

if TYPE_CHECKING:
    from sparseattn.study.results import Results
    from sparseattn.study.session import RunOutcome

app = typer.Typer(
    name="study",
    help="Declare a grid of trials, run it, compare its arms.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=examples("study run studies/smoke.yaml --out runs/smoke", "study report runs/smoke"),
)

#: Packages of the extra `study` without which no command works.
_NEEDED = ("datasets", "pandas", "pyarrow", "pydantic")

#: Trials above which `study run` asks before it begins.
_MANY = 100

Spec = Annotated[Path, typer.Argument(help="The study file (YAML).", show_default=False)]
Folder = Annotated[Path, typer.Argument(help="The study's folder.", show_default=False)]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Local worker processes, instead of the file's.")
]
Kind = Annotated[str | None, typer.Option(help="Instead of the file's: local or ray.")]
Most = Annotated[int, typer.Option(min=1, help="Refuse a grid with more trials.")]
Yes = Annotated[bool, typer.Option("--yes", help=f"Do not ask before more than {_MANY} trials.")]
Others = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        help="Another study, in its folder or packed, whose trials are taken over where they are "
        "the same; may be repeated.",
    ),
]
Versions = Annotated[
    bool, typer.Option(help="Go on although packages differ from when the study was begun.")
]


@app.callback()
def common() -> None:
    """Declare a grid of trials, run it, compare its arms."""
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        raise MissingExtraError(
            f'studies need {", ".join(lacking)}: pip install "sparseattn[study]"'
        )


@app.command(
    epilog=examples(
        "study run studies/smoke.yaml --out runs/smoke",
        "study run SPEC.yaml --out runs/mine --set training.epochs=1",
    )
)
def run(
    spec: Spec,
    out: Annotated[Path, typer.Option(help="The study's folder; made if need be.")],
    workers: Workers = None,
    executor: Kind = None,
    max_trials: Most = 10_000,
    changes: Changes = None,
    import_trials: Others = None,
    yes: Yes = False,
    other_versions: Versions = False,
) -> None:
    """Run what is missing of a study."""
    from sparseattn.study import session
    from sparseattn.study.spec import load_spec

    rest = {"max_trials": max_trials, "import_trials": import_trials or ()}
    options = _options(workers, executor, yes, other_versions, **rest)
    with interruptible(out):
        say_outcome(session.run(load_spec(spec, changes or ()), out, options))


@app.command(epilog=examples("study resume runs/smoke", "study resume runs/smoke --retry-failed"))
def resume(
    folder: Folder,
    workers: Workers = None,
    executor: Kind = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed trials again.")] = False,
    yes: Yes = False,
    other_versions: Versions = False,
) -> None:
    """Run what is missing of a study that was begun."""
    from sparseattn.study import session

    options = _options(workers, executor, yes, other_versions, retry_failed=retry_failed)
    with interruptible(folder):
        say_outcome(session.resume(folder, options))


@app.command(epilog=examples("study plan studies/smoke.yaml", "study plan SPEC.yaml --set seeds=5"))
def plan(spec: Spec, changes: Changes = None, max_trials: Most = 10_000) -> None:
    """Show the trials, their sparsity on a sample of the data, and how long they would take."""
    from sparseattn.study.spec import load_spec

    read = load_spec(spec, changes or ())  # before PyTorch is imported: a slip is told at once
    from sparseattn.study.planning import plan as planned

    with working("counting pairs on training texts, and timing some steps"):
        made = planned(read, max_trials)
    show(made)


@app.command(epilog=examples("study report runs/smoke", "study compare runs/smoke"))
def report(folder: Folder) -> None:
    """Write the report: a page, its Markdown, figures and tables."""
    from sparseattn.report import summarise, terminal_table, write_report
    from sparseattn.study.results import rebuild

    summary = summarise(_loaded(folder, rebuild(folder)))
    written = write_report(summary, folder / "report")
    show(terminal_table(summary))
    for path in written:
        typer.echo(f"wrote {path}")


@app.command(
    epilog=examples("study compare runs/smoke", "study compare runs/smoke dense neighbor@:")
)
def compare(
    folder: Folder,
    a: Annotated[str, typer.Argument(help="An arm: name, or name@layers.")] = "",
    b: Annotated[str, typer.Argument(help="Another one.")] = "",
    seeds: Annotated[str, typer.Option(help="Some seeds alone, such as 5: or 0,2.")] = "",
) -> None:
    """Compare two arms on the same examples; without arms, those that the study declared."""
    from sparseattn.errors import StudyError
    from sparseattn.report import compare as compared
    from sparseattn.report.terminal import questions_terminal

    data = _loaded(folder)
    if seeds:
        data = data.only(seeds)
    if a and b:
        typer.echo(str(compared(data, a, b)))
    elif a or not data.contrasts:
        why = "one arm" if a else "no arm, and the study declared no contrasts"
        raise StudyError(f"compare takes two arms; got {why}")
    else:
        show(questions_terminal(data))


@app.command(epilog=examples("study results runs/smoke", "study report runs/smoke"))
def results(folder: Folder) -> None:
    """Check every trial, and write results.csv and results.parquet anew."""
    from sparseattn.study.results import rebuild

    found = rebuild(folder)
    _say_damaged(found.damaged.values(), folder)
    typer.echo(f"wrote {folder / 'results.csv'} and .parquet: {counted(len(found.rows), 'trial')}")


@app.command(
    epilog=examples(
        "study pack runs/smoke smoke.tar.xz", "study unpack smoke.tar.xz --out runs/copy"
    )
)
def pack(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="What to write: NAME.tar.xz.", show_default=False)],
) -> None:
    """Put the finished trials of a study into one small file."""
    from sparseattn.study.archive import pack as packed

    trials = packed(folder, file)
    size = file.stat().st_size / 1000
    typer.echo(
        f"wrote {file}: {counted(trials, 'trial')}, {size:,.0f} kB; "
        "`sparseattn study unpack` opens it"
    )


@app.command(epilog=examples("study unpack smoke.tar.xz --out runs/copy", "study report runs/copy"))
def unpack(
    file: Annotated[Path, typer.Argument(help="A packed study.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder, or one of the same study.")],
) -> None:
    """Bring the trials of a packed study into a folder, to report on them or to go on."""
    from sparseattn.study.archive import unpack as unpacked
    from sparseattn.study.results import rebuild

    added = unpacked(file, out)
    rebuild(out)
    typer.echo(
        f"{counted(added, 'trial')} added to {out}: `sparseattn study report {out}`, or `resume`"
    )


def _loaded(folder: Path, results: Results | None = None) -> Any:
    """A study, and on the error stream what is not there of it."""
    from sparseattn.report.data import load_study

    data = load_study(folder, results)
    _say_damaged(data.damaged, folder)
    if data.missing:
        typer.echo(f"note: {data.missing}", err=True)
    return data


def _say_damaged(problems: Iterable[str], folder: Path) -> None:
    for problem in problems:
        typer.echo(f"{problem}; `sparseattn study resume {folder}` runs it again", err=True)


def _options(workers: int | None, kind: str | None, yes: bool, versions: bool, **rest: Any) -> Any:
    from sparseattn.study.session import Options

    def confirm(question: str, trials: int) -> bool:
        return yes or trials <= _MANY or not sys.stdin.isatty() or typer.confirm(question)

    changes = {"workers": workers, "kind": kind}
    executor = {name: value for name, value in changes.items() if value is not None}
    return Options(executor=executor, confirm=confirm, other_versions=versions, **rest)


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Says after Ctrl-C how to go on; status 130."""
    try:
        yield
    except KeyboardInterrupt:
        from sparseattn.study.store import STUDY

        there = (folder / STUDY).is_file()
        then = f"`sparseattn study resume {folder}` goes on" if there else "nothing was written"
        typer.echo(f"\nstopped; {then}", err=True)
        raise typer.Exit(130) from None


def say_outcome(outcome: RunOutcome) -> None:
    """Says how a run ended; status 1 for failed trials."""
    folder, what = outcome.folder, f"ran {outcome.run}" if outcome.run else "nothing to do"
    typer.echo(f"{counted(outcome.trials, 'trial')}: {what}; results in {folder / 'results.csv'}")
    typer.echo(f"`sparseattn study report {folder}` writes the report")
    if outcome.failed:
        reasons = sorted(set(outcome.failed.values()))
        typer.echo(
            f"{counted(len(outcome.failed), 'trial')} failed: {'; '.join(reasons[:3])}", err=True
        )
        typer.echo(f"`sparseattn study resume {folder} --retry-failed` runs them again", err=True)
        raise typer.Exit(1)
