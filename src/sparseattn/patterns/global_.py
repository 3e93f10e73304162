"""Global tokens, which attend everywhere, are attended to from everywhere, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from sparseattn.annotations import GLOBALS
from sparseattn.errors import PatternError, unknown
from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import at_least, distinct_names, flag, whole_numbers
from sparseattn.rules import GlobalTokens, Product, Rule
from sparseattn.spec_strings import spell
from sparseattn.tokens import TokenBatch

_NAMED = ("first", "positions", "rows", "columns")


@dataclass(frozen=True)
class Global(Pattern):
    """Rows and columns of chosen tokens.

    Args:
        kinds: `cls`, the first real token of a sequence, and `sep`, its separators.
        first: The first so many real tokens.
        positions: Places among the real tokens, from 0; one beyond the end is left out.
        rows: Whether these tokens attend to every token.
        columns: Whether every token attends to them.

    >>> from sparseattn import parse
    >>> from sparseattn.tokens import TokenBatch
    >>> print(parse("global(cls)").rule(TokenBatch.of_lengths(3)).dense(3).int()[0, 0])
    tensor([[1, 1, 1],
            [1, 0, 0],
            [1, 0, 0]], dtype=torch.int32)
    """

    kinds: tuple[str, ...] = ()
    first: int = 0
    positions: tuple[int, ...] = ()
    rows: bool = True
    columns: bool = True

    name: ClassVar[str] = "global"
    formula: ClassVar[str] = "q in G (rows) or k in G (columns)"
    degrees: ClassVar[str] = "|G|; n for a global token"
    source: ClassVar[str] = "global attention: Longformer, arXiv 2004.05150; BigBird, 2007.14062"
    example: ClassVar[str] = "global(cls)"

    def __post_init__(self) -> None:
        distinct_names(self, "kinds", GLOBALS)
        at_least(self, first=0)
        whole_numbers(self, "positions")
        if not (self.kinds or self.first or self.positions):
            raise PatternError("global() needs tokens: cls, sep, first=N or positions=[...]")
        flag(self, "rows")
        flag(self, "columns")
        if not (self.rows or self.columns):
            raise PatternError("global() needs rows or columns; both are false")

    @classmethod
    def from_arguments(cls, positional: list[Any], named: dict[str, Any]) -> Global:
        """Reads `global(cls, sep, first=2, positions=[5])`."""
        wrong = [name for name in named if name not in _NAMED]
        if wrong:
            raise PatternError(f"global(): {unknown('argument', wrong[0], _NAMED)}")
        bad = [kind for kind in positional if kind not in GLOBALS]
        if bad:
            raise PatternError(
                f"global(): {unknown('token', bad[0], [*GLOBALS, 'first=N', 'positions=[...]'])}"
            )
        return cls(tuple(positional), **named)

    @classmethod
    def signature(cls) -> str:
        return "global(cls, sep, first=0, positions=[], rows=true, columns=true)"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"separators"} if "sep" in self.kinds else ())

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        places = tokens.positions
        chosen = (places >= 0) & (places < max(self.first, int("cls" in self.kinds)))
        for position in self.positions:
            chosen = chosen | (places == position)
        if "sep" in self.kinds:
            chosen = chosen | tokens.need("separators", self)
        if self.rows and self.columns:
            return Rule((GlobalTokens(chosen),))
        return Rule((Product(queries=chosen) if self.rows else Product(keys=chosen),))

    def _arguments(self) -> Iterator[str]:
        yield from self.kinds
        if self.first:
            yield f"first={self.first}"
        if self.positions:
            yield f"positions={spell(self.positions)}"
        if not (self.rows and self.columns):
            yield "columns=false" if self.rows else "rows=false"
