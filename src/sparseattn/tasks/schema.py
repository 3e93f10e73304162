"""Field types that say plainly what is wrong with a value from a YAML file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["Fraction", "Integer", "Names", "Paths", "Real", "StrictModel"]


class StrictModel(BaseModel):
    """A frozen record: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _not_text(value: Any) -> Any:
    """Refuses a number that was written as text.

    >>> _not_text("1e-4")
    Traceback (most recent call last):
    pydantic_core._pydantic_core.PydanticCustomError: expected a number, got the text '1e-4'; remove the quotes
    """  # noqa: E501
    if not isinstance(value, str):
        return value
    try:
        float(value)
        hint = "; remove the quotes"
    except ValueError:
        hint = ""
    text = {"text": repr(value), "hint": hint}
    raise PydanticCustomError("number", "expected a number, got the text {text}{hint}", text)


#: A whole number; text that looks like one is refused.
Integer = Annotated[int, BeforeValidator(_not_text)]
#: A finite number; text that looks like one is refused.
Real = Annotated[float, BeforeValidator(_not_text)]
#: A number in [0, 1).
Fraction = Annotated[Real, Field(ge=0, lt=1)]
#: A list of names.
Names = Annotated[tuple[str, ...], Field(strict=False)]
#: A path, or a list of them.
Paths = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
