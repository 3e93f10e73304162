"""The mix of BigBird."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.patterns._mix import Mix, check_globals, global_tokens
from sparseattn.patterns.neighbor import Neighbor
from sparseattn.patterns.random_ import Random


@dataclass(frozen=True)
class BigBird(Mix):
    """Neighbours, random keys and global tokens.

    Tokens rather than BigBird's blocks of 64, so that degrees can be chosen finely. Random keys are
    drawn among all other tokens, as by `random()`, where BigBird leaves out the blocks that are
    attended to anyway: they may fall into the window or on a global token, so the degree is at most
    2 radius + 1 + random + |G|. Random and global keys can be left out with 0.

    Args:
        radius: Of the window, one-sided and inclusive, in tokens.
        random: Random keys a query.
        globals: Kinds of global tokens, `[cls]`, `[cls, sep]` or `[]`; or how many first tokens.
        seed: Of the random keys, which differ from layer to layer.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> pattern = parse("bigbird(radius=1, random=1)")
    >>> print(pattern.rule(TokenBatch.of_lengths(7)).dense(7).int()[0, 0])
    tensor([[1, 1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 1, 0],
            [1, 0, 1, 1, 1, 0, 0],
            [1, 0, 0, 1, 1, 1, 0],
            [1, 0, 0, 0, 1, 1, 1],
            [1, 0, 0, 0, 1, 1, 1]], dtype=torch.int32)
    """

    radius: int
    random: int
    globals: tuple[str, ...] | int = ("cls",)
    seed: int = 0

    name: ClassVar[str] = "bigbird"
    formula: ClassVar[str] = "|q - k| <= radius or k in S(q) or q in G or k in G"
    degrees: ClassVar[str] = "at most 2 radius + 1 + random + |G|; n for a global token"
    source: ClassVar[str] = "BigBird, arXiv 2007.14062, section 2; tokens instead of blocks"
    example: ClassVar[str] = "bigbird(radius=1, random=2)"

    def __post_init__(self) -> None:
        at_least(self, radius=0, random=0, seed=0)
        check_globals(self, self.globals)

    @property
    def parts(self) -> tuple[Pattern, ...]:
        drawn = (Random(self.random, self.seed),) if self.random else ()
        return (Neighbor(self.radius), *drawn, *global_tokens(self.globals))
