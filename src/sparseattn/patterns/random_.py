"""Random keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least, flag
from sparseattn.patterns._sampling import draw, draw_in_order, in_batch
from sparseattn.rules import Keys, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Random(Pattern):
    """Exactly `degree` other tokens for each query, drawn anew for every layer and length.

    The query itself comes on top, so `random(degree=2 * r)` has the degree of `neighbor(radius=r)`
    away from the borders. A text with fewer others gives all of them. The keys depend on the seed,
    the layer and the number of real tokens: neither on what else is in the batch nor on padding.
    BigBird draws blocks of 64 keys; these are single tokens.

    Args:
        degree: How many other tokens, at least 1.
        seed: Another seed draws other keys.
        per_layer: False gives every layer the keys of layer 0.
        drawn: Draw so many, in an order of their own, and keep the first `degree`: with the same
            `drawn`, the keys of a smaller degree are among those of a larger one.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> mask = parse("random(degree=2)").rule(TokenBatch.of_lengths(5)).dense(5)[0, 0]
    >>> print(mask.int())
    tensor([[0, 0, 0, 1, 1],
            [0, 0, 1, 1, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 1],
            [0, 1, 1, 0, 0]], dtype=torch.int32)
    >>> mask.sum(dim=1).tolist()
    [2, 2, 2, 2, 2]
    """

    degree: int
    seed: int = 0
    per_layer: bool = True
    drawn: int | None = None

    name: ClassVar[str] = "random"
    formula: ClassVar[str] = "k in S(q), a random set of `degree` tokens other than q"
    degrees: ClassVar[str] = "degree + 1"
    source: ClassVar[str] = "random attention: BigBird, arXiv 2007.14062, section 2"
    example: ClassVar[str] = "random(degree=3, seed=1)"

    def __post_init__(self) -> None:
        at_least(self, degree=1, seed=0)
        flag(self, "per_layer")
        if self.drawn is not None:
            at_least(self, drawn=self.degree)

    @property
    def varies_by_layer(self) -> bool:
        return self.per_layer

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        layer = layer if self.per_layer else 0
        lengths: list[int] = tokens.lengths.tolist()
        if self.drawn is None:
            places = [draw(self.seed, layer, (self.degree,) * length) for length in lengths]
        else:
            places = [draw_in_order(self.seed, layer, self.drawn, length) for length in lengths]
            places = [keys[:, : self.degree] for keys in places]
        return Rule((Keys(in_batch(tokens, places)),))
