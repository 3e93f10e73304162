"""A model that texts are run through, and what it did with them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparseattn.annotations import COLUMNS, PARSED
from sparseattn.backend import AUTO
from sparseattn.errors import AnnotationError, DataError, MissingExtraError, PlanError
from sparseattn.models.config import FIELD
from sparseattn.models.encoder import encoder_of
from sparseattn.models.load import load_model, load_part
from sparseattn.models.positions import max_tokens
from sparseattn.models.read import check_texts
from sparseattn.models.sparsify import plan_of, sparsify
from sparseattn.models.state import SparsityState, attached_state
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.syntax import Annotator
from sparseattn.tokens import TokenBatch

__all__ = ["MOST_LETTERS", "Passage", "Reader", "Run", "plan_from"]

#: Letters of a text that are looked at.
MOST_LETTERS = 200_000

#: What an encoder reads of a tokenizer's columns.
_READ = ("input_ids", "attention_mask", "token_type_ids", *COLUMNS)

#: Attention weights, in numbers, up to which a run keeps those of every layer.
_EVERY_LAYER = 1 << 21


@dataclass(frozen=True, eq=False)
class Passage:
    """A text, or a pair, as a model reads it.

    Attributes:
        columns: What the model is called with. Shape: [1, tokens] each.
        labels: What each token looks like.
        spans: Where it stands in its text, in characters; (0, 0) for what the tokenizer added.
        sides: Which text it is of, 0 or 1; -1 for what the tokenizer added.
        cut: Tokens left out because the model has no positions for them.
        longest: Tokens that the model has positions for; None without a limit.
    """

    columns: dict[str, Tensor]
    labels: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]
    cut: int
    longest: int | None

    def __len__(self) -> int:
        return len(self.labels)

    def column(self, name: str) -> list[int] | None:
        """An annotation of each token; None if there is no parse."""
        column = self.columns.get(name)
        return None if column is None else column[0].tolist()


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass under a plan: what was executed, not what a plan says.

    Attributes:
        tokens: What the plan could know of the passage.
        compiled: The rules that the layers computed with.
        weights: Attention of the layers that were watched. Shape: [heads, length, length] each.
    """

    tokens: TokenBatch
    compiled: CompiledPlan
    weights: dict[int, Tensor]

    @property
    def bytes(self) -> int:
        """About how much memory it takes, with the masks that counting leaves behind."""
        heads = sum(rule.heads for rule in self.compiled.layers)
        return heads * self.tokens.length**2 + 4 * sum(w.numel() for w in self.weights.values())


def plan_from(text: str) -> Plan:
    """The plan of a text that was typed: a pattern, a plan's lines, or its JSON. Opens no file.

    Raises:
        PlanError: It is none.
        PatternError: See `Plan.of`.
    """
    text = text.strip()
    if not text.startswith("{"):
        return Plan.of(text or "full()")
    try:
        return Plan.from_json(json.loads(text))
    except json.JSONDecodeError as error:
        raise PlanError(f"the plan begins like JSON, but is none: {error}") from None


class Reader:
    """A model with its tokenizer. Always carries a plan, so that changing it is cheap.

    Args:
        name: See `sparseattn.resolve`.

    Raises:
        DataError: It cannot be loaded.
        UnsupportedModelError: Its attention cannot be reached.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.config = load_part(name, "AutoConfig")
        self.tokenizer = load_part(name, "AutoTokenizer")
        carries = getattr(self.config, FIELD, None) is not None
        # T5's is half a model: an automatic class would load the decoder, too.
        saved = (self.config.architectures or [""])[0]
        kind = saved if saved.endswith("EncoderModel") else "AutoModel"
        loaded = load_model(name) if carries else load_part(name, kind)
        self.encoder = encoder_of(loaded).eval()
        self.own_plan = plan_of(self.encoder)
        sparsify(self.encoder, self.own_plan or "full()", tokenizer=self.tokenizer)

    @property
    def state(self) -> SparsityState:
        """What `sparsify` put on the encoder."""
        state = attached_state(self.encoder)
        assert state is not None, "it always carries a plan"
        return state

    @cached_property
    def limit(self) -> int | None:
        """Tokens that it has positions for."""
        return max_tokens(self.config, self.tokenizer)

    @cached_property
    def _annotators(self) -> dict[bool, Annotator]:
        return {}

    def _annotator(self, needs: frozenset[str]) -> Any:
        """Annotates where that is possible; an error only where the plan needs it."""
        tags = "tags" in needs
        try:
            if tags not in self._annotators:
                self._annotators[tags] = Annotator(self.tokenizer, tags=tags)
            return self._annotators[tags]
        except (MissingExtraError, AnnotationError):
            if needs & PARSED:
                raise
            return self.tokenizer

    def read(self, text: str, pair: str | None, needs: frozenset[str]) -> Passage:
        """Reads a text, or a pair, cut to the model's positions.

        Raises:
            DataError: A text is empty, too long or not valid Unicode, or holds no known token.
            AnnotationError: It cannot be annotated and a pattern needs that.
        """
        check_texts(text, pair)
        letters = len(text) + len(pair or "")
        if letters > MOST_LETTERS:
            raise DataError(f"{letters:,} characters are more than the {MOST_LETTERS:,} looked at")
        options: dict[str, Any] = {"verbose": False, "return_special_tokens_mask": True}
        if self.tokenizer.is_fast:
            options["return_offsets_mapping"] = True
        whole = len(self.tokenizer(text, pair, verbose=False)["input_ids"])
        if self.limit is not None:
            options |= {"truncation": True, "max_length": self.limit}
        found = self._annotator(needs)(text, pair, **options)
        if all(found["special_tokens_mask"]):
            raise DataError("the text holds no token that the tokenizer knows")
        ids = found["input_ids"]
        sides = found.sequence_ids(0) if self.tokenizer.is_fast else [None] * len(ids)
        return Passage(
            columns={name: torch.tensor([found[name]]) for name in _READ if name in found},
            labels=tuple(self.tokenizer.decode([index]).strip() or "␣" for index in ids),
            spans=tuple(map(tuple, found.get("offset_mapping", [(0, 0)] * len(ids)))),
            sides=tuple(-1 if side is None else side for side in sides),
            cut=whole - len(ids),
            longest=self.limit,
        )

    def run(self, passage: Passage, plan: Plan, watched: Collection[int]) -> Run:
        """Runs the model on a passage under a plan.

        Args:
            passage: What to read.
            plan: Replaces the one before.
            watched: Layers whose attention is kept.

        Raises:
            PlanError: The plan is empty, or made for another model.
        """
        # Of short texts without `auto`, which measures what is fastest before it runs.
        backend = "masked" if watched else AUTO
        sparsify(self.encoder, plan, tokenizer=self.tokenizer, backend=backend)
        state = self.state
        with torch.no_grad():
            state.watched = watched
            try:
                self.encoder(**passage.columns)
            finally:
                state.watched = ()
        last = state.last
        assert last is not None, "the model has just run"
        weights = {layer: weight[0] for layer, weight in last.weights.items()}
        return Run(state.tokens(dict(passage.columns)), last.compiled, weights)

    def watch(self, layer: int, length: int) -> tuple[int, ...]:
        """The layers to keep the attention of: all of a short text, one of a longer."""
        heads = self.state.heads
        return tuple(range(len(heads))) if sum(heads) * length**2 <= _EVERY_LAYER else (layer,)
