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
    "examples",
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


def examples(*lines: str) -> str:
    """The end of a command's help: lines to paste, for `epilog`."""
    return "Examples:\n\n" + "\n\n".join(f"  sparseattn {line}" for line in lines)


def settings_of(
    candidates: str | None, elastic: bool, global_tokens: str, **options: Any
) -> dict[str, Any]:
    """Keywords of `sparseattn.degrees.settings.Settings` from options as they are typed."""
    kinds: object = () if global_tokens == "none" else tuple(global_tokens.split(","))
    if global_tokens.isdecimal():
        kinds = int(global_tokens)
    radii = None
    if candidates is not None:
        values = [number(part, "candidates") for part in candidates.split(",")]
        radii = tuple(values) if elastic else tuple(int(n) if n == int(n) else n for n in values)
    return {"candidates": radii, "elastic": elastic, "globals": kinds, **options}


def number(text: str, what: str) -> float:
    """A number as it is typed; a PlanError if it is none."""
    try:
        return float(text)
    except ValueError:
        raise PlanError(f"{what} {text!r} is not a number") from None


def study_of(task: str, model: str | None, changes: Sequence[str]) -> StudySpec:
    """The study of a file, or one of a ready-made task with everything else by default.

    `model`, and `changes` such as `training.epochs=1`, replace what the file says.
    """
    from sparseattn.study.reading import changed
    from sparseattn.study.spec import load_spec, spec_of

    changes = [*changes, f"model={model}"] if model else list(changes)
    if Path(task).suffix or Path(task).exists():
        return load_spec(task, changes)
    values = {"name": task, "model": DEFAULT, "task": {"use": task}, "arms": ["dense"]}
    return spec_of(changed(values, changes))


def check_file(out: Path | None) -> None:
    """Makes sure that a file can be written before anything is computed."""
    if out is None:
        return
    if not out.parent.is_dir():
        raise PlanError(f"cannot write {out}: there is no folder {out.parent}")
    if out.is_dir():
        raise PlanError(f"cannot write {out}: it is a folder")


def read_lines(path: Path, wanted: int = 1) -> list[tuple[str, ...]]:
    """The columns, between tabs, of the lines whose first is not empty; `wanted` have text."""
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
