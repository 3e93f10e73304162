"""How degrees are learned: every choice, with a default that works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparseattn.errors import PlanError, unknown
from sparseattn.selection import Selection, select_indices, spell_selection

if TYPE_CHECKING:
    from sparseattn.degrees.candidates import Candidates
    from sparseattn.degrees.cost import Costs
    from sparseattn.degrees.texts import Texts

__all__ = ["OVER", "Settings", "rows_over"]

#: Texts that a sparsity may be asked to hold over.
OVER = ("train", "evaluation")

_CHOICES = {
    "shared": ("head", "layer"),
    "form": ("regular", "irregular"),
    "start": ("dense", "calibrated"),
    "worth": ("attention", "output"),
    "over": OVER,
}


@dataclass(frozen=True)
class Settings:
    """How degrees are learned.

    Attributes:
        menu: Radii to choose from, the first of them 0; by default 0 and the powers of two that
            reach across the longest text.
        largest: A radius that no head exceeds, in tokens.
        elastic: Radii as shares of a text's length instead of tokens.
        shared: A radius for each `head`, or one for the heads of each `layer`.
        globals: Global tokens: kinds, or how many first tokens.
        form: `regular`, a radius a head; `irregular`, a radius a token position.
        dense: Layers that stay dense; they count in the sparsity.
        start: Distributions to start from: `dense`, near the largest radius, or `calibrated`.
        worth: What calibration keeps: the heads' `attention`, or the model's `output`.
        over: Texts that the sparsity is to hold over: those of training, or the evaluation ones, of
            which only the lengths and the special tokens are looked at. For data sets whose
            evaluation texts are longer or shorter than their training texts.
        soft: Share of the training steps that the soft phase takes, in (0, 1).
        learning_rate: Of the distributions.
        warmup: Share of the soft phase over which the target moves from the start to the goal.
        hot: First temperature.
        cold: Last temperature.
        ascent: Step size of the dual ascent.
        sample: Texts that the budget is counted over, at most.
        seed: Of irregular plans.
    """

    menu: tuple[float, ...] | None = None
    largest: int | None = None
    elastic: bool = False
    shared: str = "head"
    globals: tuple[str, ...] | int = ("cls",)
    form: str = "regular"
    dense: Selection = ""
    start: str = "dense"
    worth: str = "attention"
    over: str = "train"
    soft: float = 0.5
    learning_rate: float = 0.1
    warmup: float = 0.4
    hot: float = 1.0
    cold: float = 0.2
    ascent: float = 0.05
    sample: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            PlanError: One is not possible.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PlanError(unknown(name, getattr(self, name), choices))
        for name in ("learning_rate", "hot", "cold", "ascent", "sample"):
            if not getattr(self, name) > 0:
                raise PlanError(f"{name} {getattr(self, name)!r} must be above 0")
        if not 0 < self.soft < 1 or not 0 <= self.warmup <= 1:
            raise PlanError(
                f"soft {self.soft!r} must be between 0 and 1, warmup {self.warmup!r} from 0 to 1"
            )
        object.__setattr__(self, "dense", spell_selection(self.dense))
        if not (self.largest is None or _counts(self.largest)):
            raise PlanError(f"largest {self.largest!r} must be a whole number of tokens >= 1")
        if self.elastic and self.form == "irregular":
            raise PlanError("an elastic menu has a radius a head: write form='regular'")
        if self.menu is not None:
            if self.largest is not None:
                raise PlanError("a menu says what the largest radius is: give one, menu or largest")
            self.menu_for(0)

    @classmethod
    def of(cls, options: dict[str, Any]) -> Settings:
        """Settings from keywords.

        Raises:
            PlanError: One is unknown or not possible.
        """
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise PlanError(unknown("option", name, cls.__dataclass_fields__))
        return cls(**options)

    def counted(self, texts: Texts, tokenizer: Any = None) -> tuple[Candidates, Costs]:
        """The menu for some texts, and what its radii cost there.

        Args:
            texts: Sample texts.
            tokenizer: Tells which tokens are separators, where they are global.
        """
        from sparseattn.degrees.candidates import Candidates
        from sparseattn.degrees.cost import Costs
        from sparseattn.degrees.texts import state_of
        from sparseattn.models.sparsify import sparsified
        from sparseattn.plan import Plan

        smallest = Candidates((0, 1), globals=self.globals).pattern(0)
        batches = texts.tokens(Plan.of(smallest), tokenizer)
        with sparsified(texts.model, "full()"):
            state = state_of(texts.model)
            heads, windows = state.heads, state.windows
        menu = self.menu_for(max(int(tokens.lengths.max()) for tokens in batches))
        return menu, Costs.of(menu, batches, heads, windows, self.dense_layers(len(heads)))

    def menu_for(self, longest: int) -> Candidates:
        """The menu for texts of at most so many tokens."""
        from sparseattn.degrees.candidates import Candidates

        if self.menu is not None:
            return Candidates(tuple(self.menu), self.elastic, self.globals)
        return Candidates.up_to(
            longest, largest=self.largest, elastic=self.elastic, globals=self.globals
        )

    def dense_layers(self, count: int) -> list[int]:
        """The layers that stay dense, of a model that has so many."""
        return select_indices(spell_selection(self.dense), count, "layer")


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def rows_over(over: str, train: Any, evaluation: Any) -> Any:
    """The rows that a budget is counted over.

    Args:
        over: One of `OVER`.
        train: Training rows.
        evaluation: Evaluation rows, or None.

    Raises:
        PlanError: They are the evaluation rows, and there are none.
    """
    if over == "train":
        return train
    if evaluation is None:
        raise PlanError("over='evaluation' needs evaluation texts: give trainer eval_dataset")
    return evaluation
