"""The texts of a pair, one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparseattn.errors import PatternError
from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.rules import Product, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Segment(Pattern):
    """From the tokens of one text of a pair to those of another; the way back is not implied.

    Texts are what separators end, and a separator belongs to the text that it ends. Other special
    tokens, such as `[CLS]`, belong to none: what passes through them passes from text to text.

    Args:
        query: Text of the queries, from 0; every token by default, special ones too.
        key: Text of the keys, likewise.

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> real = torch.ones(1, 5, dtype=torch.bool)
    >>> separators = torch.tensor([[0, 0, 1, 0, 1]]).bool()  # [CLS] who [SEP] she [SEP]
    >>> special = torch.tensor([[1, 0, 1, 0, 1]]).bool()
    >>> tokens = TokenBatch(real, special=special, separators=separators)
    >>> print(parse("segment(query=1, key=0)").rule(tokens).dense(5).int()[0, 0])
    tensor([[0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0],
            [0, 1, 1, 0, 0]], dtype=torch.int32)
    """

    query: int | None = None
    key: int | None = None

    name: ClassVar[str] = "segment"
    formula: ClassVar[str] = "text(q) = query and text(k) = key"
    degrees: ClassVar[str] = "tokens of the text `key`"
    source: ClassVar[str] = "asymmetric attention: Sparse Cross-Encoders, arXiv 2312.17649"
    example: ClassVar[str] = "segment(query=1, key=0)"

    def __post_init__(self) -> None:
        given = {n: 0 for n in ("query", "key") if getattr(self, n) is not None}
        if not given:
            raise PatternError("segment() needs query=N, key=N or both")
        at_least(self, **given)

    needs = frozenset({"separators", "special"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        segments = _segments(tokens, self)
        queries = None if self.query is None else segments == self.query
        keys = None if self.key is None else segments == self.key
        return Rule((Product(queries, keys),))


def _segments(tokens: TokenBatch, who: Pattern) -> Tensor:
    """The text of each token, from 0; -1 for none. Shape: [batch, length], int64."""
    ends = tokens.need("separators", who) & tokens.valid
    others = tokens.valid & ~ends
    ended = ends.cumsum(1)
    # Separators may stand side by side, as RoBERTa's: a text starts after the last of them.
    before = ended.masked_fill(~others, 0).cummax(1).values.roll(1, 1)
    before[:, 0] = 0
    follows = others & (others.cumsum(1) > 1) & (ended > before)
    segments = follows.cumsum(1)
    beside = tokens.need("special", who) & ~ends
    return segments.masked_fill(~tokens.valid | beside, -1)
