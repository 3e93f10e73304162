"""Options that several commands share, and what they stand for. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.status import Status

from sparseattn.degrees.settings import DEFAULT_OVER
from sparseattn.errors import DataError, PlanError, reason
from sparseattn.models.names import DEFAULT

if TYPE_CHECKING:
    from sparseattn.study.spec import StudySpec

Over = Annotated[
    str,
    typer.Option(
        help="Rankings whose degrees are found, such as neighbor,similarity,dependency,random; "
        "'neighbor(degrees=[0,1,8])' names the candidates."
    ),
]
#: What `over` is by default, as it is typed.
DEFAULT_RANKINGS = ",".join(DEFAULT_OVER)
Granularity = Annotated[str, typer.Option(help="Degrees for each head, or for each layer.")]
DenseLayers = Annotated[str, typer.Option(help="Layers that stay dense, such as ':2'.")]
Globals = Annotated[
    str, typer.Option("--globals", help="Kinds: cls, or cls,sep; how many first tokens; or none.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Instead of what the file says, such as task.max_length=64; may be repeated.",
    ),
]
TaskTexts = Annotated[
    str | None,
    typer.Option("--task", help="A study file or a name such as sst2: 256 of its training texts."),
]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a Hub name or package:NAME.")
]
Model = Annotated[
    str | None, typer.Option(help="Instead of the task's, or of the packaged MiniLM.")
]
Png = Annotated[Path | None, typer.Option(help="Also draw it into this file (.png, .svg or .pdf).")]
Svg = Annotated[Path | None, typer.Option(help="Also draw it into this file (.svg).")]
Html = Annotated[
    Path | None,
    typer.Option(help="Also draw it into this page, in words too (.html)."),
]

#: Ends of the names of files that hold a text a line.
_TEXT = {".txt", ".tsv", ".text", ""}


def examples(*lines: str) -> str:
    """The end of a command's help: lines to paste, for `epilog`."""
    return "Examples:\n\n" + "\n\n".join(f"  sparseattn {line}" for line in lines)


def globals_of(text: str) -> tuple[str, ...] | int:
    """Global tokens as they are typed: kinds, a number of first tokens, or none."""
    if text.isdecimal():
        return int(text)
    return () if text == "none" else tuple(text.split(","))


def number(text: str, what: str) -> float:
    """A number as it is typed; a PlanError if it is none."""
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{what} {text!r} is not a number") from None


def parse_lengths(text: str) -> list[int]:
    """The numbers of tokens of a `--lengths`; a BadParameter if it lists something else."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise typer.BadParameter(f"--lengths {text!r} is no list of lengths such as 128,512.")
    return numbers


def study_of(task: str, model: str | None, changes: Sequence[str] | None) -> StudySpec:
    """The study of a file, or one of a ready-made task with everything else by default.

    `model`, and `changes` such as `training.epochs=1`, replace what the file says.
    """
    from sparseattn.study.reading import changed
    from sparseattn.study.spec import load_spec, spec_of

    changes = [*(changes or ()), *([f"model={model}"] if model else ())]
    if Path(task).suffix or Path(task).exists():
        return load_spec(task, changes)
    values = {"name": task, "model": DEFAULT, "task": {"use": task}, "arms": ["dense"]}
    return spec_of(changed(values, changes))


def check_source(task: str | None, text: Path | None, changes: Sequence[str] | None) -> None:
    """Makes sure that texts come from a task or from a file; a DataError if not from one alone."""
    if (task is None) == (text is None):
        raise DataError("the texts are those of --task or of --text; give one of them")
    if text is not None and changes:
        raise DataError("--set goes with --task")


def working(what: str) -> Status:
    """A context that shows on the error stream what is being done."""
    return Console(stderr=True).status(what)


def show(what: object) -> None:
    """Prints what `rich` knows to draw, in its own colours alone."""
    Console(highlight=False).print(what)


def check_file(out: Path, what: str, *endings: str) -> None:
    """Makes sure, before anything is computed, that a file has a fitting name and can be written.

    Raises:
        DataError: It has not, or cannot.
    """
    if out.suffix.lower() not in endings:
        raise DataError(f"a {what}'s name ends in {', '.join(endings)}; got {str(out)!r}")
    if not out.parent.is_dir():
        raise DataError(f"cannot write {out}: there is no folder {out.parent}")
    if out.exists() and not out.is_file():
        raise DataError(f"cannot write {out}: it is no file")
    try:
        with TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise DataError(f"cannot write {out}: {reason(error)}") from None


def picture_files(png: Path | None, svg: Path | None, html: Path | None) -> list[Path]:
    """The files that a picture is to be drawn into, each of them checked."""
    asked = ((png, (".png", ".svg", ".pdf")), (svg, (".svg",)), (html, (".html",)))
    for out, endings in asked:
        if out is not None:
            check_file(out, "picture", *endings)
    return [out for out, _ in asked if out is not None]


def read_lines(path: Path, wanted: int = 1) -> list[tuple[str, ...]]:
    """The columns, between tabs, of the lines whose first is not empty; `wanted` have text."""
    if path.suffix.lower() not in _TEXT:
        raise DataError(f"{path} is no text: expected a text a line, in a file .txt or .tsv")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        columns = tuple(map(str.strip, line.split("\t")))
        if not columns[0]:
            continue
        if not all((*columns, *[""] * wanted)[:wanted]):
            raise DataError(f"{path}, line {number}: expected {wanted} texts with a tab between")
        rows.append(columns)
    if not rows:
        raise DataError(f"{path} holds no text")
    return rows


def read_texts(path: Path) -> list[str]:
    """The texts of a file, a text a line."""
    return [columns[0] for columns in read_lines(path)]
