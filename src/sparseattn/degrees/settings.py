"""How degrees are learned: every choice, with a default that works. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparseattn.errors import PlanError, unknown
from sparseattn.selection import Selection, select_indices, spell_selection

if TYPE_CHECKING:
    from sparseattn.degrees.candidates import Candidates
    from sparseattn.degrees.cost import Costs
    from sparseattn.degrees.texts import Texts

__all__ = ["BUDGET_SPLITS", "Settings", "split_rows"]

#: The splits that a sparsity may be met on.
BUDGET_SPLITS = ("train", "evaluation")

_CHOICES = {
    "granularity": ("head", "layer"),
    "form": ("regular", "irregular"),
    "start": ("dense", "calibrated"),
    "importance": ("attention", "output"),
    "budget_split": BUDGET_SPLITS,
}


@dataclass(frozen=True)
class Settings:
    """How degrees are learned.

    Attributes:
        candidates: Radii to choose from, the first of them 0; by default 0 and the powers of two
            that reach across the longest text.
        max_radius: A radius that no head exceeds, in tokens; instead of `candidates`.
        elastic: Radii as shares of a text's length instead of tokens.
        granularity: A radius for each `head`, or one for the heads of each `layer`.
        globals: Global tokens: kinds, or how many first tokens.
        form: `regular`, a radius a head; `irregular`, a radius a token position.
        dense_layers: Layers that stay dense; they count in the sparsity.
        start: Distributions to start from: `dense`, near the largest radius, or `calibrated`.
        importance: What calibration keeps: the heads' `attention`, or the model's `output`.
        budget_split: The texts that the sparsity is met on: those of training, or the evaluation
            ones, of which only the lengths and the special tokens are looked at. For data whose
            evaluation texts are longer or shorter than their training texts.
        search_steps: Fraction of the training steps that the search phase takes, in (0, 1).
        learning_rate: Of the distributions.
        warmup: Fraction of the search phase over which the target moves from the start to the goal.
        temperature_start: First temperature.
        temperature_end: Last temperature.
        seed: Of irregular plans.
    """

    candidates: tuple[float, ...] | None = None
    max_radius: int | None = None
    elastic: bool = False
    granularity: str = "head"
    globals: tuple[str, ...] | int = ("cls",)
    form: str = "regular"
    dense_layers: Selection = ""
    start: str = "dense"
    importance: str = "attention"
    budget_split: str = "train"
    search_steps: float = 0.5
    learning_rate: float = 0.1
    warmup: float = 0.4
    temperature_start: float = 1.0
    temperature_end: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PlanError(unknown(name, getattr(self, name), choices))
        for name in ("learning_rate", "temperature_start", "temperature_end"):
            if not getattr(self, name) > 0:
                raise PlanError(f"{name} {getattr(self, name)!r} must be above 0")
        if not 0 < self.search_steps < 1:
            raise PlanError(f"search_steps {self.search_steps!r} must be between 0 and 1")
        if not 0 <= self.warmup <= 1:
            raise PlanError(f"warmup {self.warmup!r} must be from 0 to 1")
        object.__setattr__(self, "dense_layers", spell_selection(self.dense_layers))
        radius = self.max_radius
        if radius is not None and (
            isinstance(radius, bool) or not isinstance(radius, int) or radius < 1
        ):
            raise PlanError(f"max_radius {radius!r} must be a whole number of tokens >= 1")
        if self.elastic and self.form == "irregular":
            raise PlanError("elastic radii are one a head: write form='regular'")
        if self.candidates is not None:
            if radius is not None:
                raise PlanError("give candidates or max_radius, not both")
            self.candidates_for(0)

    @classmethod
    def of(cls, options: dict[str, Any]) -> Settings:
        """Settings from keywords; a PlanError for one that is unknown or not possible."""
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise PlanError(unknown("option", name, cls.__dataclass_fields__))
        return cls(**options)

    def costs(self, texts: Texts, tokenizer: Any = None) -> Costs:
        """The candidates for some texts, and what they cost there.

        Raises:
            PlanError: The model lacks a layer that is to stay dense.
        """
        from sparseattn.degrees.candidates import Candidates
        from sparseattn.degrees.cost import Costs
        from sparseattn.degrees.texts import shape_of
        from sparseattn.plan import Plan

        smallest = Candidates((0, 1), globals=self.globals).pattern(0)
        batches = texts.tokens(Plan.of(smallest), tokenizer)
        heads, windows = shape_of(texts.model)
        candidates = self.candidates_for(max(int(tokens.lengths.max()) for tokens in batches))
        dense = select_indices(spell_selection(self.dense_layers), len(heads), "layer")
        return Costs.of(candidates, batches, heads, windows, dense)

    def candidates_for(self, longest: int) -> Candidates:
        """The candidates for texts of at most so many tokens."""
        from sparseattn.degrees.candidates import Candidates

        if self.candidates is not None:
            return Candidates(tuple(self.candidates), self.elastic, self.globals)
        return Candidates.up_to(
            longest, max_radius=self.max_radius, elastic=self.elastic, globals=self.globals
        )


def split_rows(split: str, train: Any, evaluation: Any) -> Any:
    """The rows that a budget is counted over; a PlanError where they are those of None."""
    if split == "train":
        return train
    if evaluation is None:
        raise PlanError(
            "budget_split='evaluation' needs evaluation texts: give trainer eval_dataset"
        )
    return evaluation
