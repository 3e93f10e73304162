"""A random graph with the degrees of another pattern."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least, flag, refused
from sparseattn.patterns._sampling import draw, draw_beside, in_batch
from sparseattn.rules import Band, Keys, LayerRule, Rule
from sparseattn.tokens import TokenBatch

#: Queries whose keys are counted at a time: bounds the memory to QUERIES x length pairs a text.
QUERIES = 1024


@dataclass(frozen=True)
class MatchedRandom(Pattern):
    """For each query as many keys as `pattern` gives it, but random ones.

    The control that separates *which* keys from *how many*. Degrees are those of the compiled
    pattern: clipped at the borders, over real tokens, the query itself counted and kept. They are
    degrees of queries; how often a key is attended to is not matched, so a global token still
    attends to everything but is no longer attended to by everything, unless it is kept.

    Args:
        pattern: Whose degrees to match; it must treat all heads alike.
        seed: Another seed draws other keys.
        per_layer: False draws every layer's keys as layer 0's are drawn.
        keep: Pairs that stay as they are, such as those of global tokens; they count towards the
            degree, and the random keys are others. Drawing around them takes length x length
            numbers.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> pattern = parse("matched_random(neighbor(radius=1), seed=2)")
    >>> mask = pattern.rule(TokenBatch.of_lengths(5)).dense(5)[0, 0]
    >>> print(mask.int())
    tensor([[1, 0, 0, 1, 0],
            [0, 1, 0, 1, 1],
            [0, 1, 1, 0, 1],
            [0, 0, 1, 1, 1],
            [0, 0, 1, 0, 1]], dtype=torch.int32)
    >>> mask.sum(dim=1).tolist()
    [2, 3, 3, 3, 2]
    """

    pattern: Pattern
    seed: int = 0
    per_layer: bool = True
    keep: Pattern | None = None

    name: ClassVar[str] = "matched_random"
    formula: ClassVar[str] = (
        "k = q or k in keep(q) or k in S(q), random others up to deg(pattern, q)"
    )
    degrees: ClassVar[str] = "that of pattern"
    source: ClassVar[str] = "a control of our own"
    example: ClassVar[str] = "matched_random(neighbor(radius=2) | global(cls), seed=1)"

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, Pattern):
            raise refused(self, "pattern", "must be a pattern, such as neighbor(radius=2)")
        if not (self.keep is None or isinstance(self.keep, Pattern)):
            raise refused(self, "keep", "must be a pattern, such as global(cls)")
        at_least(self, seed=0)
        flag(self, "per_layer")

    @property
    def needs(self) -> frozenset[str]:
        return self._whole.needs

    @property
    def varies_by_layer(self) -> bool:
        return self.per_layer or self._whole.varies_by_layer

    @property
    def _whole(self) -> Pattern:
        return self.pattern if self.keep is None else self.pattern | self.keep

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        if self.keep is not None:
            return self._beside(self.keep, tokens, layer)
        degrees = self._allowed(self.pattern, tokens, layer, count=True)
        every = degrees >= tokens.lengths[:, None]
        # Queries that see everything are windows as wide as the text: as lists of keys, they would
        # make the lists of all the other queries as long.
        listed = (degrees - 1).masked_fill(every, 0)
        places = [
            draw(self.seed, layer if self.per_layer else 0, tuple(row[real].tolist()))
            for row, real in zip(listed, tokens.valid, strict=True)
        ]
        reach = torch.where(every, tokens.length, 0)
        return Rule((Band(reach), Keys(in_batch(tokens, places))))

    def _beside(self, keep: Pattern, tokens: TokenBatch, layer: int) -> Rule:
        degrees = self._allowed(self._whole, tokens, layer, count=True).cpu()
        kept = self._allowed(keep, tokens, layer).cpu()
        drawn = layer if self.per_layer else 0
        places = [
            draw_beside(self.seed, drawn, pairs[real][:, real], wanted[real])
            for pairs, wanted, real in zip(kept, degrees, tokens.valid.cpu(), strict=True)
        ]
        return Rule((*keep.rule(tokens, layer).parts, Band(0), Keys(in_batch(tokens, places))))

    def _allowed(
        self, pattern: Pattern, tokens: TokenBatch, layer: int, count: bool = False
    ) -> Tensor:
        """The compiled pairs of a pattern, or how many each query has.

        Shape: [batch, length, length], bool, or [batch, length], int64.
        """
        whole = LayerRule((((0,), pattern.rule(tokens, layer)),), 1, tokens.valid)
        index = torch.arange(tokens.length, device=tokens.device)
        blocks = (whole.allowed(queries, index) for queries in torch.split(index, QUERIES))
        pairs = torch.cat([one.sum(dim=-1) if count else one for one in blocks], dim=2)
        if pairs.shape[1] > 1:
            raise refused(self, "pattern", "must allow the same pairs in every head")
        return pairs[:, 0]

    def _arguments(self) -> Iterator[str]:
        yield str(self.pattern)
        yield from (a for a in super()._arguments() if not a.startswith("pattern="))
