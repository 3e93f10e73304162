"""Everything that sparseattn raises on purpose.

```
SparseAttnError
├── PatternError              an unknown pattern or argument, or a value it cannot take
│   └── SpecError             a spec string that does not parse; points at the column
├── PlanError                 a layer or head that the model lacks, a malformed plan
├── AnnotationError           a pattern needs an annotation that the batch does not carry
├── UnsupportedModelError     a model whose attention cannot be reached
├── PlanNotAppliedError       a sparsified model was about to run without its plan
├── BackendError              a backend was asked for something that it cannot compute
├── DataError                 a data set, column, label or text that cannot be used
├── StudyError                a study's spec or folder that cannot be used
│   └── TrialFailed           a trial that cannot give a result
├── AppError                  the explorer cannot start, or is asked for too much at once
└── MissingExtraError         an optional dependency that is not installed
```

Each message is one line that names the thing, the value and the valid choices. The command line
prints it and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class SparseAttnError(Exception):
    """The base class: catch it to catch everything above."""


class PatternError(SparseAttnError, ValueError):
    """An unknown pattern or argument, or a value it cannot take."""


class SpecError(PatternError):
    """A spec string that does not parse.

    Args:
        message: What is wrong.
        text: The whole spec string.
        column: Where, counted from 0.
    """

    def __init__(self, message: str, text: str, column: int) -> None:
        self.text, self.column = text, column
        super().__init__(f"{message}; at column {column + 1} of {text!r}")


class PlanError(SparseAttnError, ValueError):
    """A layer or head that the model lacks, or a malformed plan."""


class AnnotationError(SparseAttnError, ValueError):
    """A pattern needs an annotation that the batch does not carry."""


class UnsupportedModelError(SparseAttnError, TypeError):
    """A model whose attention cannot be reached."""


class PlanNotAppliedError(SparseAttnError, RuntimeError):
    """A sparsified model was about to run, or ran, without its plan."""


class BackendError(SparseAttnError, RuntimeError):
    """A backend was asked for something that it cannot compute."""


class DataError(SparseAttnError, ValueError):
    """A data set, column, label or text that cannot be used."""


class StudyError(SparseAttnError, ValueError):
    """A study's spec or folder that cannot be used."""


class TrialFailed(StudyError):  # noqa: N818
    """A trial that cannot give a result: its loss is not a number, or memory ran out."""


class AppError(SparseAttnError, RuntimeError):
    """The explorer cannot start, or is asked for too much at once."""


class MissingExtraError(SparseAttnError, ImportError):
    """An optional dependency that is not installed."""


def reason(error: Exception) -> str:
    """What went wrong with a file, without its path, for messages that name it themselves.

    >>> reason(FileNotFoundError(2, "No such file or directory", "plan.json"))
    'No such file or directory'
    """
    return getattr(error, "strerror", None) or str(error)


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says, or its name where it says nothing.

    Lines of OpenVINO that name its own source are left out.

    >>> first_line(ValueError("no such file\nTraceback ..."))
    'no such file'
    """
    lines = [x for x in str(error).strip().splitlines() if not x.startswith("Exception from ")]
    return (lines or [type(error).__name__])[0]


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, with its place, in one line."""
    first = error.errors(include_url=False)[0]
    why = first["msg"].removeprefix("Value error, ").split()
    return "".join(f"{part}: " for part in first["loc"]) + " ".join(why)


def unknown(kind: str, value: object, choices: Iterable[object]) -> str:
    """Returns one line that says `value` is no `kind`, which ones are, and the nearest.

    >>> unknown("pattern", "neighbour", ["global", "neighbor"])
    "unknown pattern 'neighbour' (did you mean 'neighbor'?); choose from: global, neighbor"
    """
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {value!r}{hint}; choose from: {', '.join(names) or '(none)'}"
