"""A model that texts are run through, and what it did with them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseattn.annotations import PARSED
from sparseattn.backend import AUTO
from sparseattn.degrees.texts import READ, state_of
from sparseattn.errors import AnnotationError, DataError, MissingExtraError, PlanError
from sparseattn.models.config import FIELD
from sparseattn.models.encoder import encoder_of
from sparseattn.models.interface import Pass
from sparseattn.models.load import load_model, load_part
from sparseattn.models.positions import max_tokens
from sparseattn.models.read import check_texts
from sparseattn.models.sparsify import plan_of, sparsify
from sparseattn.models.state import SparsityState
from sparseattn.plan import Plan
from sparseattn.rules import LayerRule
from sparseattn.syntax import Annotator
from sparseattn.tokens import TokenBatch

#: Letters of a text that are looked at, and tokens; fewer of models that hold all scores at once.
MOST_LETTERS, MOST_TOKENS, MOST_AT_ONCE = 200_000, 8192, 1024

#: Numbers up to which a run keeps what attention is made of in every layer.
_EVERY_LAYER = 5 << 19

#: Tokens up to which no time is taken to measure the fastest backend.
_SHORT = 512

#: Pairs that are looked at at a time.
PAIRS = 1 << 21


@dataclass(frozen=True, eq=False)
class Passage:
    """A text, or a pair, as a model reads it.

    Attributes:
        columns: What the model is called with. Shape: [1, tokens] each.
        labels: What each token looks like.
        spans: Where it stands in its text, in characters; (0, 0) for what the tokenizer added.
        sides: Which text it is of, 0 or 1; -1 for what the tokenizer added.
        cut: Tokens left out.
        why: Why, in words; empty where none was.
    """

    columns: dict[str, Tensor]
    labels: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]
    cut: int
    why: str

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
        done: The pass, with the rules that the layers computed with.
    """

    tokens: TokenBatch
    done: Pass

    @property
    def layers(self) -> tuple[LayerRule, ...]:
        """What each layer computed."""
        return self.done.compiled.layers

    @property
    def bytes(self) -> int:
        """About how much memory it takes, with the masks that the backends keep."""
        numbers = 0
        for kept in self.done.kept.values():
            parts = (kept,) if isinstance(kept, Tensor) else (kept.query, kept.key)
            numbers += sum(part.numel() for part in parts)
        masks = sum(r.heads if len(r.groups) > 1 else 1 for r in set(self.layers))
        return 4 * numbers + masks * min(self.tokens.length, _SHORT) ** 2

    @cached_property
    def counts(self) -> list[Tensor]:
        """The pairs of each head, layer by layer. Shape: [heads] each, int64."""
        known = {
            rule: torch.stack([part.sum(dim=(1, 2)) for part in _parts(rule)])
            .sum(dim=0)
            .expand(rule.heads)
            for rule in set(self.layers)
        }
        return [known[rule] for rule in self.layers]

    @cached_property
    def unions(self) -> list[np.ndarray[Any, Any]]:
        """The keys that some head lets each query hear, as bits, layer by layer.

        Shape: [length, length / 8] each, uint8.
        """
        known = {
            rule: np.concatenate([np.packbits(part.any(dim=0), axis=1) for part in _parts(rule)])
            for rule in set(self.layers)
        }
        return [known[rule] for rule in self.layers]


def _parts(rule: LayerRule) -> Iterator[Tensor]:
    """The mask of a layer, some queries at a time. Shape: [heads or 1, queries, length], bool."""
    every = torch.arange(rule.length)
    rows = max(1, PAIRS // (rule.heads * rule.length))
    for top in range(0, rule.length, rows):
        yield rule.allowed(every[top : top + rows], every)[0]


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
        self._annotators: dict[bool, Annotator] = {}
        sparsify(self.encoder, plan_of(self.encoder) or "full()", tokenizer=self.tokenizer)

    @property
    def state(self) -> SparsityState:
        """What `sparsify` put on the encoder."""
        return state_of(self.encoder)

    @cached_property
    def limit(self) -> tuple[int, str]:
        """Tokens that are read, and why no more."""
        positions = max_tokens(self.config, self.tokenizer)
        most = MOST_AT_ONCE if self.state.mask_only else MOST_TOKENS
        if positions is not None and positions <= most:
            return positions, f"the model has positions for {positions:,} tokens"
        return most, f"{most:,} tokens of this model are looked at"

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
        """Reads a text, or a pair, cut to what is looked at.

        Raises:
            DataError: A text is empty, too long or not valid Unicode, or holds no known token.
            AnnotationError: It cannot be annotated and a pattern needs that.
        """
        check_texts(text, pair)
        letters = len(text) + len(pair or "")
        if letters > MOST_LETTERS:
            raise DataError(f"{letters:,} characters are more than the {MOST_LETTERS:,} looked at")
        limit, why = self.limit
        options: dict[str, Any] = {"truncation": True, "max_length": limit}
        options |= {"verbose": False, "return_special_tokens_mask": True}
        if self.tokenizer.is_fast:
            options["return_offsets_mapping"] = True
        whole = len(self.tokenizer(text, pair, verbose=False)["input_ids"])
        found = self._annotator(needs)(text, pair, **options)
        if all(found["special_tokens_mask"]):
            raise DataError("the text holds no token that the tokenizer knows")
        ids = found["input_ids"]
        sides = found.sequence_ids(0) if self.tokenizer.is_fast else [None] * len(ids)
        return Passage(
            columns={name: torch.tensor([found[name]]) for name in READ if name in found},
            labels=tuple(self.tokenizer.decode([index]).strip() or "␣" for index in ids),
            spans=tuple(map(tuple, found.get("offset_mapping", [(0, 0)] * len(ids)))),
            sides=tuple(-1 if side is None else side for side in sides),
            cut=whole - len(ids),
            why=why if whole > len(ids) else "",
        )

    def run(self, passage: Passage, plan: Plan, watched: Collection[int]) -> Run:
        """Runs the model on a passage under a plan.

        Args:
            passage: What to read.
            plan: Replaces the one before.
            watched: Layers whose attention can be read afterwards.

        Raises:
            PlanError: The plan is empty, or made for another model.
        """
        backend = "masked" if len(passage) <= _SHORT else AUTO
        sparsify(self.encoder, plan, tokenizer=self.tokenizer, backend=backend)
        state = self.state
        with torch.no_grad():
            state.watched = watched
            try:
                self.encoder(**passage.columns)
            finally:
                state.watched = ()
        assert state.last is not None, "the model has just run"
        return Run(state.tokens(dict(passage.columns)), state.last)

    def watch(self, layer: int, length: int) -> tuple[int, ...]:
        """The layers to keep the attention of: all of a short text, one of a longer."""
        heads = self.state.heads
        numbers = 2 * len(heads) * self.config.hidden_size * length
        if self.state.mask_only:
            numbers = sum(heads) * length**2
        return tuple(range(len(heads))) if numbers <= _EVERY_LAYER else (layer,)
