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
    """Refuses a number that was written, or that YAML reads, as text.

    >>> _not_text("1e-4")
    Traceback (most recent call last):
    pydantic_core._pydantic_core.PydanticCustomError: expected a number; YAML reads '1e-4' as text, write 1.0e-4
    """  # noqa: E501
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        raise PydanticCustomError(
            "number", "expected a number, got the text {text}", {"text": repr(value)}
        ) from None
    mantissa, exponent, power = value.strip().lower().partition("e")
    if not exponent:
        raise PydanticCustomError(
            "number_as_text",
            "expected a number, got the text {text}; remove the quotes",
            {"text": repr(value)},
        )
    spelt = (mantissa if "." in mantissa else f"{mantissa}.0") + "e"
    spelt += power if power[0] in "+-" else f"+{power}"
    raise PydanticCustomError(
        "number_as_text",
        "expected a number; YAML reads {text} as text, write {spelt}",
        {"text": repr(value), "spelt": spelt},
    )


#: A whole number; text that looks like one is refused.
Integer = Annotated[int, BeforeValidator(_not_text)]
#: A finite number; text that looks like one is refused with the spelling that YAML understands.
Real = Annotated[float, BeforeValidator(_not_text)]
#: A number in [0, 1).
Fraction = Annotated[Real, Field(ge=0, lt=1)]
#: A list of names.
Names = Annotated[tuple[str, ...], Field(strict=False)]
#: A path, or a list of them.
Paths = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
