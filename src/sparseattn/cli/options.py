"""Options that several commands share, and what they stand for. Light to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseattn.errors import DataError, PlanError, reason
from sparseattn.models.names import DEFAULT

if TYPE_CHECKING:
    from sparseattn.study.spec import StudySpec

__all__ = [
    "CandidateRadii",
    "DenseLayers",
    "Elastic",
    "Form",
    "Globals",
    "Granularity",
    "Importance",
    "MaxRadius",
    "check_file",
    "number",
    "read_lines",
    "settings_of",
    "study_of",
]

CandidateRadii = Annotated[
    str | None, typer.Option("--candidates", help="Radii to choose from, such as 0,1,2,4,8,64.")
]
Elastic = Annotated[bool, typer.Option(help="Radii are shares of a text's length.")]
Granularity = Annotated[str, typer.Option(help="A radius for each head, or for each layer.")]
Form = Annotated[str, typer.Option(help="regular: a radius a head; irregular: a token position.")]
DenseLayers = Annotated[str, typer.Option(help="Layers that stay dense, such as ':2'.")]
Importance = Annotated[
    str, typer.Option(help="What calibration keeps: a head's attention, or the model's output.")
]
Globals = Annotated[
    str, typer.Option("--globals", help="Kinds: cls, or cls,sep; how many first tokens; or none.")
]
MaxRadius = Annotated[int | None, typer.Option(help="A radius that no head exceeds, in tokens.")]


def settings_of(
    candidates: str | None, elastic: bool, global_tokens: str, **options: Any
) -> dict[str, Any]:
    """Keywords of `sparseattn.degrees.settings.Settings` from options as they are typed.

    Raises:
        PlanError: A candidate is not a number.
    """
    kinds: object = () if global_tokens == "none" else tuple(global_tokens.split(","))
    if global_tokens.isdecimal():
        kinds = int(global_tokens)
    radii = None
    if candidates is not None:
        values = [number(part, "candidates") for part in candidates.split(",")]
        radii = tuple(values) if elastic else tuple(int(n) if n == int(n) else n for n in values)
    return {"candidates": radii, "elastic": elastic, "globals": kinds, **options}


def number(text: str, what: str) -> float:
    """A number as it is typed.

    Raises:
        PlanError: It is none.
    """
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{what} {text!r} is not a number") from None


def study_of(task: str, model: str | None, changes: Sequence[str]) -> StudySpec:
    """The study of a file, or one of a ready-made task with everything else by default.

    Args:
        task: A study file, or the name of a ready-made task.
        model: Instead of the file's.
        changes: What to read instead of what the file says: `training.epochs=1`.

    Raises:
        StudyError: There is no such file or task, or it says something that a study cannot.
    """
    from sparseattn.study.reading import changed
    from sparseattn.study.spec import load_spec, spec_of

    changes = [*changes, f"model={model}"] if model else list(changes)
    if Path(task).suffix or Path(task).exists():
        return load_spec(task, changes)
    values = {"name": task, "model": DEFAULT, "task": {"use": task}, "arms": ["dense"]}
    return spec_of(changed(values, changes))


def check_file(out: Path | None) -> None:
    """Makes sure that a file can be written before anything is computed.

    Raises:
        PlanError: It is a folder, or there is no folder for it.
    """
    if out is not None and not out.parent.is_dir():
        raise PlanError(f"cannot write {out}: there is no folder {out.parent}")
    if out is not None and out.is_dir():
        raise PlanError(f"cannot write {out}: it is a folder")


def read_lines(path: Path, wanted: int = 1) -> list[tuple[str, ...]]:
    """The columns, between tabs, of the lines whose first is not empty.

    Raises:
        DataError: The file cannot be read or holds no text, or a line has fewer columns with text
            than are wanted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None
    rows = [tuple(map(str.strip, line.split("\t"))) for line in lines]
    for line, columns in enumerate(rows, 1):
        if columns[0] and not all((*columns, *[""] * wanted)[:wanted]):
            raise DataError(f"{path}, line {line}: expected {wanted} texts with a tab between")
    if not any(columns[0] for columns in rows):
        raise DataError(f"{path} holds no text")
    return [columns for columns in rows if columns[0]]
