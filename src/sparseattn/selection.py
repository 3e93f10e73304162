"""Selections of layers or heads, as users write them. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from sparseattn.errors import PlanError

#: Layers or heads: `"6:"`, `"0,2,4:6"`, `-1`, `slice(6, None)`, or a list of these.
Selection = str | int | slice | Iterable["str | int | slice"]


def is_plan(text: str) -> bool:
    """Whether a text is the lines of a plan, which name its layers; see `sparseattn.Plan.spelled`.

    >>> is_plan("layers 1:, heads 0,2: self()"), is_plan("layer 1: self()"), is_plan("self()")
    (True, True, False)
    """
    return text.lstrip().startswith(("layers ", "layer "))


def spell_selection(selection: Selection) -> str:
    """Writes a selection as a string.

    Raises:
        PlanError: It is not a selection.

    >>> spell_selection([0, slice(4, 6), -1])
    '0,4:6,-1'
    """
    if isinstance(selection, bool):
        raise PlanError(f"{selection!r} does not select layers or heads")
    if isinstance(selection, Integral):  # NumPy's, too
        return str(int(selection))
    if isinstance(selection, slice):
        parts = [selection.start, selection.stop, selection.step]
        return (
            ":".join("" if part is None else str(part) for part in parts).removesuffix(":") or ":"
        )
    if isinstance(selection, str):
        text = selection.replace(" ", "")
        select_indices(text, None, "layer or head")
        return text
    if isinstance(selection, Iterable):
        return ",".join(spell_selection(part) for part in selection)
    raise PlanError(f"{selection!r} does not select layers or heads; write '6:', '0,2' or a list")


def select_indices(text: str, count: int | None, what: str) -> list[int]:
    """The indices that a spelled selection names, in order and without repeats.

    Args:
        text: The selection; the empty string selects nothing.
        count: How many there are; None only checks the spelling.
        what: What they are, for messages.

    Raises:
        PlanError: It does not parse, or names one that is not there.

    >>> select_indices("0,4:,-1", 6, "layer")
    [0, 4, 5]
    """
    chosen: dict[int, None] = {}
    for part in filter(None, text.split(",")):
        pieces = part.split(":")
        try:
            numbers = [int(piece) if piece else None for piece in pieces]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or numbers == [None] or numbers[2:] == [0]:
            raise PlanError(f"{what} selection {text!r} does not parse; write '6:', '0,2' or '-3:'")
        if count is None:
            continue
        if len(numbers) == 1 and numbers[0] is not None:
            chosen[_existing(numbers[0], count, what)] = None
        else:
            for edge, most in zip(numbers[:2], (count - 1, count), strict=True):
                if edge is not None and not -count <= edge <= most:
                    raise PlanError(_lacking(edge, count, what))
            chosen |= dict.fromkeys(range(count)[slice(*numbers)])
    return list(chosen)


def _existing(index: int, count: int, what: str) -> int:
    if not -count <= index < count:
        raise PlanError(_lacking(index, count, what))
    return index % count


def _lacking(index: int, count: int, what: str) -> str:
    return f"{what} {index} does not exist: the model has {count}, 0 to {count - 1}"
