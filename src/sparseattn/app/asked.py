"""What the page may ask. Light to import."""

from __future__ import annotations

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sparseattn.errors import DataError, first_problem


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Asked:
    """A question; each answer reads what it needs of it.

    Attributes:
        text: A text.
        pair: A second one; None or white space for none.
        plan: As it was typed: a pattern, a plan's lines or its JSON.
        layer: Negative ones count back; likewise heads.
        top: The first query of the part of a long text that is shown; likewise `left`, of keys.
        token: Whose receptive field it is.
        model: One that was named, or that of a study; empty for the first.
        source: Where texts to probe are from: `file:NAME`, `study:NAME` or `typed:LINES`.
        own: A pattern to probe beside the others; empty for none.
        kind: Of pairs that were probed.
    """

    text: str = ""
    pair: str | None = None
    plan: str = "full()"
    layer: int = 0
    head: int = 0
    top: int = 0
    left: int = 0
    token: int = 0
    model: str = ""
    source: str = ""
    own: str = ""
    kind: str = "similar"
    study: str = ""
    digest: str = ""

    @classmethod
    def of(cls, content: bytes) -> Asked:
        """Reads a question from its JSON; a DataError for what is none."""
        try:
            return TypeAdapter(cls).validate_json(content)
        except ValidationError as error:
            raise DataError(first_problem(error)) from None
