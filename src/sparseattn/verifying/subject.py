"""What a plan is compiled for: the layers and heads of the model that should be running."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from sparseattn.annotations import COLUMNS
from sparseattn.errors import AnnotationError, PlanError, UnsupportedModelError
from sparseattn.models.config import SparsityConfig
from sparseattn.models.encoder import Attention, attention_layers, encoder_of
from sparseattn.models.load import load_model, load_part, quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import special_ids
from sparseattn.models.state import ATTRIBUTE, SparsityState, followed
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch
from sparseattn.verifying.reach import Reach
from sparseattn.verifying.texts import Text

__all__ = ["Subject", "loaded", "plan_for", "tokenizer_for"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A plan and the model that it is for.

    Attributes:
        heads: Heads of each layer.
        encoder: The encoder, if there is one here.
        state: What is known of its attention; None where it cannot be reached.
        tokenizer: Says which tokens are special; may be None.
    """

    plan: Plan
    heads: Sequence[int]
    encoder: Any = None
    state: SparsityState | None = None
    tokenizer: Any = None

    @classmethod
    def of(cls, plan: Plan, model: Any, tokenizer: Any) -> Subject:
        """Looks at a model; without one the plan must carry its shape.

        Raises:
            PlanError: It does not, or is for another model.
        """
        if model is None:
            if plan.shape is None:
                raise PlanError(
                    "nothing says how many layers and heads the model has: give model=, the model "
                    "or its name, or a plan with a shape"
                )
            plan.resolve(plan.shape)
            return cls(plan, plan.shape, tokenizer=tokenizer)
        encoder = encoder_of(model)
        special, separators = special_ids(tokenizer, encoder.config)
        known = followed(encoder)
        if known is not None and tokenizer is None:
            special, separators = known.special, known.separators
        config = SparsityConfig(plan, special=special, separators=separators)
        state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
        try:
            if state is None:
                state = SparsityState.of(encoder, config)
            state = replace(state, config=config, compiler=None)
            heads = state.heads
        except UnsupportedModelError:
            config = encoder.config
            heads = [config.num_attention_heads] * config.num_hidden_layers
        plan.resolve(heads)
        return cls(plan, heads, encoder, state, tokenizer)

    @property
    def special(self) -> set[int] | None:
        """Ids that are not changed; None where they are not known."""
        if self.tokenizer is not None:
            return set(self.tokenizer.all_special_ids)
        if self.encoder is None:
            return None
        config = vars(self.encoder.config).items()
        return {value for name, value in config if name.endswith("_token_id")} - {None}

    @property
    def longest(self) -> int | None:
        """The most tokens that the model reads."""
        return None if self.encoder is None else max_tokens(self.encoder.config)

    @property
    def exact(self) -> bool:
        """Whether a changed token leaves the masks as they are, and so the order of every sum."""
        return "embedding" not in self.plan.needs

    def compile(self, columns: dict[str, Tensor]) -> CompiledPlan:
        """The plan compiled for a batch."""
        if self.state is not None:
            return self.state.compile(self.state.tokens(columns))
        return self.plan.compile(TokenBatch.of_columns(columns), self.heads)

    def compile_length(self, length: int) -> CompiledPlan | None:
        """The plan compiled for a text of so many tokens; None where that is not all it needs."""
        windows = None if self.state is None else self.state.windows
        try:
            return self.plan.compile(TokenBatch.of_lengths(length), self.heads, windows)
        except AnnotationError:
            return None

    def joined(self, reach: Reach, copy: Text, place: int) -> Reach:
        """What the plan allows in a text or in its copy, in which one token is another."""
        if self.exact:
            return reach
        return reach.joined(Reach.of(self.compile(copy.columns)), place)

    def layers_of(self, model: Any) -> list[Attention]:
        """The attention layers of what runs.

        Raises:
            PlanError: They are not those of the model that the plan is for.
        """
        encoder = encoder_of(model)
        if encoder is self.encoder and self.state is not None:
            return self.state.layers
        attached: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
        layers = attached.layers if attached is not None else attention_layers(encoder)
        if [layer.heads for layer in layers] != list(self.heads):
            raise PlanError(
                f"{type(encoder).__name__} has other layers or heads than the model that should run"
            )
        return layers

    def mixes(self, model: Any) -> bool:
        """Whether a convolution of a model carries information beside its attention."""
        kinds = (nn.Conv1d, nn.Conv2d)
        found = (each for each in encoder_of(model).modules() if isinstance(each, kinds))
        return any(max(each.kernel_size) > 1 for each in found)

    def columns(self, text: Text, model: Any) -> dict[str, Tensor]:
        """What an encoder takes of a text's columns."""
        encoder = encoder_of(model)
        names = set(inspect.signature(encoder.forward).parameters)
        if getattr(encoder, ATTRIBUTE, None) is not None:
            names |= COLUMNS.keys()
        device = next(encoder.parameters()).device
        return {name: x.to(device) for name, x in text.columns.items() if name in names}


def loaded(model: Any) -> Any:
    """A model, loaded if it is a name."""
    if isinstance(model, str):
        with quiet():
            return load_model(model)
    return model


def plan_for(plan: Any, model: Any) -> Plan:
    """The plan to verify: by default the one that a model says it follows.

    Raises:
        PlanError: It says nothing.
    """
    if plan is not None:
        return Plan.of(plan)
    if isinstance(model, nn.Module):
        encoder = encoder_of(model)
        if (known := followed(encoder)) is not None:
            return known.plan
        if "sliding_attention" in (getattr(encoder.config, "layer_types", None) or ()):
            return Plan.of("full()")  # within its own windows
    raise PlanError("there is no plan to verify: give one, such as 'neighbor(radius=64)'")


def tokenizer_for(tokenizer: Any, what: Any, model: Any) -> Any:
    """The tokenizer that was given, or that of a wrapper or a name; None without any."""
    if tokenizer is not None:
        return tokenizer
    for each in (what, getattr(what, "__self__", None), model):
        if isinstance(each, nn.Module) and hasattr(each, "tokenizer"):
            return each.tokenizer
    return load_part(model, "AutoTokenizer") if isinstance(model, str) else None
