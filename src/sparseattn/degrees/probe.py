"""How much of a model's own attention falls on the pairs of a pattern, head by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparseattn.degrees.method import is_method
from sparseattn.degrees.observe import watched
from sparseattn.degrees.texts import Texts, every, tokenised
from sparseattn.errors import DataError, PatternError
from sparseattn.pattern import Pattern, parse
from sparseattn.plan import Plan
from sparseattn.selection import is_plan
from sparseattn.tokens import PARSED

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Probed", "pattern_of", "probe", "probed"]

#: Texts that are looked at, at most.
MOST = 512

#: Heads that are printed.
_TOP = 10


@dataclass(frozen=True, eq=False)
class Probed:
    """What a pattern keeps of a model's attention.

    Over the *queries*: the real tokens that have a key under the pattern. Layers and heads count
    from 0.

    Attributes:
        pattern: Its spec string.
        kept: The share of a query's attention that falls on its keys under the pattern, averaged
            over queries; nan in a layer without any. Shape: [layers, heads], float64, in [0, 1].
        even: What it would be if a query attended alike to all real tokens that the layer reaches
            (all of the text, but for models with local attention). Shape: [layers], likewise.
        queries: How many queries there are in each layer.
        tokens: Real tokens.
        texts: Texts that they stand in.
    """

    pattern: str
    kept: Tensor
    even: Tensor
    queries: tuple[int, ...]
    tokens: int
    texts: int

    @property
    def times(self) -> Tensor:
        """How many times what even attention would keep. Shape: [layers, heads], float64."""
        return self.kept / self.even[:, None]

    def rows(self) -> list[dict[str, float | int]]:
        """A row a head, those that keep the most first."""
        sortable = self.kept.flatten().nan_to_num(-1.0)
        order = sortable.argsort(descending=True, stable=True).tolist()
        heads = self.kept.shape[1]
        return [
            {
                "layer": layer,
                "head": head,
                "kept": float(self.kept[layer, head]),
                "even": float(self.even[layer]),
                "times": float(self.times[layer, head]),
                "queries": self.queries[layer],
            }
            for layer, head in (divmod(index, heads) for index in order)
        ]

    def __str__(self) -> str:
        """The table as plain text."""
        from rich.console import Console

        console = Console(width=100, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get().rstrip()

    def __rich__(self) -> Group:
        """The heads that keep the most, and all of them together."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE)
        for name in ("layer", "head", "attention kept", "if even", "times"):
            table.add_column(name, justify="right")
        rows = self.rows()
        for row in rows[:_TOP]:
            table.add_row(
                f"{row['layer']}",
                f"{row['head']}",
                f"{row['kept']:.1%}",
                f"{row['even']:.1%}",
                f"{row['times']:.1f}",
            )
        kept, even = float(self.kept.nanmean()), float(self.even.nanmean())
        table.add_section()
        table.add_row("all", f"{len(rows)}", f"{kept:.1%}", f"{even:.1%}", f"{kept / even:.1f}")
        fewest, most = min(self.queries), max(self.queries)
        over = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}, according to the layer,"
        return Group(
            Text(f"attention on {self.pattern}"),
            table,
            Text(
                f"shares of a token's attention, means over {over} of {self.tokens:,} real tokens: "
                f"those that have such a key; {self.texts:,} texts. Layers and heads count from 0."
            ),
        )


def probe(
    model: Any, pattern: Pattern | str, texts: Sequence[Any], *, tokenizer: Any = None
) -> Probed:
    """Measures how much of a model's own attention falls on the pairs of a pattern.

    The model attends densely; nothing is trained and nothing changed. Where a head puts many times
    as much attention on these pairs as an even one would, ask of another pattern, too: a head may
    look for something that these pairs happen to have.

    ```
    probe(model, "similarity(k=1) - sentence()", pairs)  # to the like of a word in other sentences
    probe(model, "similarity(k=1) & sentence()", pairs)  # or of the same one?
    ```

    Args:
        model: A transformers encoder, with or without a head.
        pattern: The pattern or its spec string. Global tokens and a token itself are part of what
            is measured if they are part of the pattern.
        texts: Texts, pairs of texts, or tokenised rows with the annotations that the pattern needs;
            of more than 512 that many are looked at, evenly spread.
        tokenizer: The model's own by default.

    Raises:
        PatternError: It is no pattern, or no token has a key under it.
        UnsupportedModelError: The model's attention cannot be seen.
        DataError: There are no texts.
        AnnotationError: A row lacks an annotation, or texts cannot be annotated.
    """
    from transformers import AutoTokenizer

    from sparseattn.syntax import Annotator, Collator

    made = pattern_of(pattern)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(
        model.name_or_path, trust_remote_code=False
    )
    if isinstance(texts, str):
        raise DataError("texts is one text; give a list of them")
    some = [texts[index] for index in every(len(texts), MOST)]
    read = Annotator(tokenizer) if made.needs & PARSED else None
    rows = tokenised(model, some, tokenizer, read=read, pairs=True)
    return probed(Texts(model, rows, Collator(tokenizer), MOST), made, tokenizer)


def pattern_of(given: Pattern | str) -> Pattern:
    """What a user calls a pattern.

    Raises:
        PatternError: It is none.
    """
    if isinstance(given, str):
        if given.endswith(".json") or is_plan(given) or is_method(given):
            raise PatternError(f"{given!r} is a plan; attention is measured on a pattern's pairs")
        return parse(given)
    if not isinstance(given, Pattern):
        raise PatternError(f"expected a pattern or its spec string, got {given!r}")
    return given


def probed(texts: Texts, pattern: Pattern, tokenizer: Any = None) -> Probed:
    """`probe` for texts that are tokenised already.

    Args:
        texts: The model and what it reads.
        pattern: The pattern.
        tokenizer: Tells which tokens are special, where the pattern needs that.

    Raises:
        SparseAttnError: See `probe`.
    """
    kept: list[Tensor] = []
    even: list[Tensor] = []
    queries: list[Tensor] = []
    tokens = 0
    for seen in watched(texts, Plan.of(pattern), None, tokenizer):
        every_pair: Tensor | None = None
        sums = []
        for layer, (weights, reached) in enumerate(zip(seen.weights, seen.open, strict=True)):
            if every_pair is None or pattern.varies_by_layer:
                rule = pattern.rule(seen.tokens, layer)
                every_pair = rule.dense(seen.tokens.length, seen.tokens.device)
            mask = (every_pair & reached).squeeze(1)
            asked = mask.any(dim=-1)
            share = mask.sum(dim=-1).double() / reached.squeeze(1).sum(dim=-1).clamp(min=1)
            mass = (weights * mask[:, None]).sum(dim=(0, 2, 3)).double()
            sums.append((mass.cpu(), (share * asked).sum().cpu(), asked.sum().cpu()))
        for total, parts in zip((kept, even, queries), zip(*sums, strict=True), strict=True):
            total.append(torch.stack(parts))
        tokens += int(seen.tokens.valid.sum())
    counts = torch.stack(queries).sum(dim=0)
    if not bool(counts.any()):
        raise PatternError(f"no token of these texts has a key under {pattern}")
    return Probed(
        pattern=str(pattern),
        kept=torch.stack(kept).sum(dim=0) / counts[:, None],
        even=torch.stack(even).sum(dim=0) / counts,
        queries=tuple(counts.tolist()),
        tokens=tokens,
        texts=len(texts.rows),
    )
