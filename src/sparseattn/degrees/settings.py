"""How degrees are learned: every choice, with a default that works. Loads no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparseattn.annotations import GLOBALS
from sparseattn.errors import PlanError, unknown
from sparseattn.selection import Selection, select_indices, spell_selection

if TYPE_CHECKING:
    from sparseattn.degrees.candidates import Candidates
    from sparseattn.degrees.cost import Costs
    from sparseattn.degrees.texts import Texts

#: The splits that a sparsity may be met on.
BUDGET_SPLITS = ("train", "evaluation")

#: The rankings that degrees are learned over unless others are named.
DEFAULT_OVER = ("neighbor", "similarity")

_CHOICES = {"granularity": ("head", "layer"), "budget_split": BUDGET_SPLITS}


@dataclass(frozen=True)
class Settings:
    """How degrees are learned.

    Attributes:
        over: The rankings whose degrees are learned, such as `neighbor, similarity`; a call names
            the candidates: `neighbor(degrees=[0, 1, 8])`.
        granularity: Degrees for each `head`, or the same for the heads of each `layer`.
        globals: Global tokens: kinds, or how many first tokens.
        off: Whether a head may do without the global tokens too, and keep each token's own place
            alone.
        dense_layers: Layers that stay dense; they count in the sparsity.
        budget_split: The texts that the sparsity is met on: those of training, or the evaluation
            ones, of whose labels nothing is looked at. For data whose evaluation texts are longer
            or shorter than their training texts.
        search_steps: Fraction of the training steps that the search phase takes, in (0, 1).
        learning_rate: Of the distributions.
        warmup: Fraction of the search phase over which the target moves from the start to the goal.
        temperature_start: First temperature.
        temperature_end: Last temperature.
    """

    over: Sequence[str] | str = DEFAULT_OVER
    granularity: str = "head"
    globals: tuple[str, ...] | int = ("cls",)
    off: bool = True
    dense_layers: Selection = ""
    budget_split: str = "train"
    search_steps: float = 0.5
    learning_rate: float = 0.1
    warmup: float = 0.4
    temperature_start: float = 1.0
    temperature_end: float = 0.05

    def __post_init__(self) -> None:
        from sparseattn.degrees.ranking import parse_rankings

        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PlanError(unknown(name, getattr(self, name), choices))
        for kind in () if isinstance(self.globals, int) else self.globals:
            if kind not in GLOBALS:
                raise PlanError(unknown("global token", kind, GLOBALS))
        for name in ("learning_rate", "temperature_start", "temperature_end"):
            if not getattr(self, name) > 0:
                raise PlanError(f"{name} {getattr(self, name)!r} must be above 0")
        if not 0 < self.search_steps < 1:
            raise PlanError(f"search_steps {self.search_steps!r} must be between 0 and 1")
        if not 0 <= self.warmup < 1:
            raise PlanError(f"warmup {self.warmup!r} must be from 0 to below 1")
        object.__setattr__(self, "dense_layers", spell_selection(self.dense_layers))
        object.__setattr__(self, "over", tuple(map(str, parse_rankings(self.over))))

    @classmethod
    def of(cls, options: dict[str, Any], names: Collection[str] = ()) -> Settings:
        """Settings from keywords, maybe some alone; a PlanError for one that is not possible."""
        for name in options:
            if name not in (names or cls.__dataclass_fields__):
                raise PlanError(unknown("option", name, names or cls.__dataclass_fields__))
        return cls(**options)

    @property
    def needs(self) -> frozenset[str]:
        """Annotations that the rankings need of the texts."""
        return self._candidates(2).needed.needs

    def _candidates(self, longest: int) -> Candidates:
        from sparseattn.degrees.candidates import Candidates
        from sparseattn.degrees.ranking import parse_rankings

        return Candidates.up_to(parse_rankings(self.over), longest, self.globals, self.off)

    def costs(self, texts: Texts, tokenizer: Any = None) -> Costs:
        """The candidates for some texts, and what they cost there.

        Raises:
            PlanError: The model lacks a layer that is to stay dense.
            AnnotationError: A ranking needs what the texts do not carry.
        """
        from sparseattn.degrees.cost import Costs
        from sparseattn.degrees.texts import shape_of
        from sparseattn.plan import Plan

        batches = texts.tokens(Plan.of(self._candidates(2).needed), tokenizer)
        heads, windows = shape_of(texts.model)
        candidates = self._candidates(max(int(tokens.lengths.max()) for tokens in batches))
        dense = select_indices(spell_selection(self.dense_layers), len(heads), "layer")
        return Costs.of(candidates, batches, heads, windows, dense)


def split_rows(split: str, train: Any, evaluation: Any) -> Any:
    """The rows that a budget is counted over; a PlanError where they are those of None."""
    if split == "train":
        return train
    if evaluation is None:
        raise PlanError(
            "budget_split='evaluation' needs evaluation texts: give trainer eval_dataset"
        )
    return evaluation
