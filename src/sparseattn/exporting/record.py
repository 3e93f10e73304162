"""What an exported file says of itself, so that it can be verified without its model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparseattn.errors import DataError, first_problem
from sparseattn.plan import Plan

# Anybody may have written a file, so numbers have limits.
_Size = Annotated[int, Field(ge=0, le=2**31)]
_Heads = Annotated[int, Field(ge=1, le=1024)]


class Record(BaseModel):
    """A plan, and what is to be known of the model that it was exported with.

    Attributes:
        format: The version of this list.
        plan: See `Plan.to_json`.
        heads: Heads of each attention layer.
        windows: Radius in tokens that each layer never exceeds; None for no limit.
        vocabulary: How many tokens it knows; their ids begin at 0.
        special: Ids that stand for no word, such as that of padding.
        longest: The most tokens of a text; None for no limit.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["sparseattn-file-1"] = "sparseattn-file-1"
    plan: dict[str, Any]
    heads: Annotated[list[_Heads], Field(min_length=1, max_length=1024)]
    windows: list[_Size | None]
    vocabulary: Annotated[int, Field(ge=1, le=2**24)]
    special: list[_Size]
    longest: Annotated[int, Field(ge=1, le=2**31)] | None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.read_plan().resolve(self.heads)
        if len(self.windows) != len(self.heads):
            raise ValueError("there is not one window for each layer")
        return self

    def read_plan(self) -> Plan:
        """The plan."""
        return Plan.from_json(self.plan)

    @classmethod
    def read(cls, text: str, where: object) -> Record:
        """Reads what a file carries.

        Args:
            text: The record as JSON; empty if there is none.
            where: The file, for messages.

        Raises:
            DataError: There is none, or it is damaged.
        """
        instead = "give the plan, and the model that it was made of (--plan, --model)"
        if not text:
            raise DataError(f"{where} does not say which plan it follows: {instead}")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            why = first_problem(error)
        raise DataError(f"what {where} says of its plan is damaged ({why}): {instead}")
