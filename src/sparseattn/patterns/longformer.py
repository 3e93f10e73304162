"""The mix of Longformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least
from sparseattn.patterns._mix import Mix, check_globals, global_tokens
from sparseattn.patterns.neighbor import Neighbor


@dataclass(frozen=True)
class Longformer(Mix):
    """Neighbours and global tokens.

    The mask of Longformer with a window of `2 radius` tokens, without dilation (write
    `dilated(...) | global(...)` for that). Longformer also gives global tokens query, key and value
    projections of their own; a mask on a pretrained encoder cannot, so all tokens share theirs.

    Args:
        radius: Of the window, one-sided and inclusive, in tokens.
        globals: Kinds of global tokens, `[cls]`, `[cls, sep]` or `[]`; or how many first tokens.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> pattern = parse("longformer(radius=1)")
    >>> print(pattern.rule(TokenBatch.of_lengths(5)).dense(5).int()[0, 0])
    tensor([[1, 1, 1, 1, 1],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 0, 1, 1, 1],
            [1, 0, 0, 1, 1]], dtype=torch.int32)
    """

    radius: int
    globals: tuple[str, ...] | int = ("cls",)

    name: ClassVar[str] = "longformer"
    formula: ClassVar[str] = "|q - k| <= radius or q in G or k in G"
    degrees: ClassVar[str] = "2 radius + 1 + |G|; n for a global token"
    source: ClassVar[str] = "Longformer, arXiv 2004.05150, section 3.1; shared projections"
    example: ClassVar[str] = "longformer(radius=2)"

    def __post_init__(self) -> None:
        at_least(self, radius=0)
        check_globals(self, self.globals)

    @property
    def parts(self) -> tuple[Pattern, ...]:
        return (Neighbor(self.radius), *global_tokens(self.globals))
