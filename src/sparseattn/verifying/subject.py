"""What a plan is compiled for: the layers and heads of the model that should be running."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sparseattn.errors import AnnotationError, DataError, PlanError, UnsupportedModelError
from sparseattn.exporting.record import Record
from sparseattn.models.encoder import encoder_of, special_of
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import config_of
from sparseattn.models.state import SparsityState, attached_state, followed
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch
from sparseattn.verifying.reach import Reach

#: The longest text that is thought of.
_LONGEST = 2048
#: Random texts, and the fewest tokens of each.
_TEXTS, _TOKENS = 3, 64


@dataclass(frozen=True, eq=False)
class Subject:
    """A plan, and what is known of the model that it is for.

    Attributes:
        heads: Heads of each layer.
        windows: Radius that each layer never exceeds, if any is known.
        special: Ids that are not changed; None where they are not known.
        vocabulary: How many tokens the model knows; 0 where that is not known.
        longest: The most tokens that it reads; None without a known limit.
        state: What is known of its attention; None where it cannot be reached.
    """

    plan: Plan
    heads: Sequence[int]
    windows: Sequence[int | None] | None = None
    special: Collection[int] | None = None
    vocabulary: int = 0
    longest: int | None = None
    state: SparsityState | None = None

    @classmethod
    def of(
        cls, plan: Any, tokenizer: Any, model: Any, record: Callable[[], Record] | None
    ) -> Subject:
        """Puts together what a model says, or else a file's record, or else the plan itself.

        Each may be None; a tokenizer says which tokens are special.

        Raises:
            PlanError: There is no plan, or it is for another model.
            DataError: The file's record is needed, and it has none or a damaged one.
        """
        given = plan is not None
        if given:
            plan = Plan.of(plan)
        elif model is not None:
            plan = _plan_of(model)
        known = None
        if record is not None:
            needed = plan is None or (model is None and plan.shape is None)
            with nullcontext() if needed else suppress(DataError):
                known = record()
                plan = plan or known.read_plan()
        if plan is None:
            raise PlanError("there is no plan to verify: give one, such as 'neighbor(radius=64)'")
        if model is not None:
            found = _of_model(plan, model, tokenizer)
            if known is not None:
                _refuse_other(known, found, model, given)
        elif known is not None:
            facts = known.windows, known.special, known.vocabulary, known.longest
            found = cls(plan, known.heads, *facts)
        elif plan.shape is not None:
            found = cls(plan, plan.shape)
        else:
            raise PlanError(
                "nothing says how many layers and heads the model has: give model=, the model or "
                "its name, or a plan with a shape"
            )
        plan.resolve(found.heads)
        return found if tokenizer is None else replace(found, special=tokenizer.all_special_ids)

    @property
    def exact(self) -> bool:
        """Whether a changed token leaves the masks as they are, and so the order of every sum."""
        return "embedding" not in self.plan.needs

    def compile(self, columns: dict[str, Tensor]) -> CompiledPlan:
        """The plan compiled for a batch."""
        if self.state is not None:
            return self.state.compile(self.state.tokens(columns))
        return self.plan.compile(TokenBatch.of_columns(columns), self.heads, self.windows)

    def shortest(self, enough: Callable[[Reach], bool]) -> int | None:
        """The fewest tokens of a text with enough out of reach; None where no length has."""
        longest = min(self.longest or _LONGEST, _LONGEST)

        def holds(length: int) -> bool:
            try:
                batch = TokenBatch.of_lengths(length)
                return enough(Reach.of(self.plan.compile(batch, self.heads, self.windows)))
            except AnnotationError:  # it depends on more than the length
                return False

        high = 4
        while high < longest and not holds(high):
            high = min(2 * high, longest)
        return bisect_left(range(1, high), True, key=holds) + 1 if holds(high) else None

    def random_texts(self) -> list[list[int]]:
        """Texts of ordinary tokens, long enough for the plan; the same each time."""
        ordinary = sorted(set(range(self.vocabulary)).difference(self.special or ()))
        if not ordinary:
            raise DataError("there are no texts: give some, or model= for random ones")
        wanted = max(_TOKENS, 2 * (self.shortest(Reach.hides_from_vector) or 0))
        length, drawn = min(wanted, self.longest or wanted), random.Random(0)
        return [drawn.choices(ordinary, k=length) for _ in range(_TEXTS)]


def _plan_of(model: Any) -> Plan | None:
    """The plan that a model says it follows."""
    encoder = encoder_of(model)
    if (known := followed(encoder)) is not None:
        return known.plan
    local = "sliding_attention" in (getattr(encoder.config, "layer_types", None) or ())
    return Plan.of("full()") if local else None  # within its own windows


def _refuse_other(record: Record, found: Subject, model: Any, given: bool) -> None:
    """Raises a PlanError where a file says that it was made of another model."""
    table = encoder_of(model).get_input_embeddings()
    windows = record.windows if found.windows is None else list(found.windows)
    pairs = {
        "heads": (record.heads, list(found.heads)),
        "windows": (record.windows, windows),
        "vocabulary": (record.vocabulary, table.weight.shape[0]),
    }
    if not given:
        pairs["plan"] = record.read_plan().spelled, found.plan.spelled
    for name, (mine, its) in pairs.items():
        if mine != its:
            raise PlanError(f"the file was made of another model: {name} {mine}, and not {its}")


def _of_model(plan: Plan, model: Any, tokenizer: Any) -> Subject:
    encoder = encoder_of(model)
    config = config_of(model, plan, tokenizer)
    state = attached_state(encoder)
    heads: list[int] = []
    try:
        state = replace(state or SparsityState.of(encoder, config), config=config, compiler=None)
        heads = state.heads
    except UnsupportedModelError:
        heads = [encoder.config.num_attention_heads] * encoder.config.num_hidden_layers
    return Subject(
        plan,
        heads,
        None if state is None else state.windows,
        special_of(encoder.config),
        getattr(encoder.config, "vocab_size", None) or 0,
        max_tokens(encoder.config),
        state,
    )
