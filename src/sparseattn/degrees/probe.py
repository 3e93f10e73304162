"""How much of a model's own attention falls on the pairs of a pattern, head by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparseattn.degrees.method import is_method
from sparseattn.degrees.observe import Observation, observe
from sparseattn.degrees.picture import heads_drawing
from sparseattn.degrees.texts import Texts, tokenize
from sparseattn.drawing import Drawing
from sparseattn.errors import PatternError
from sparseattn.pattern import Pattern, parse
from sparseattn.plan import Plan
from sparseattn.selection import is_plan
from sparseattn.words import counted

if TYPE_CHECKING:
    from rich.console import Group

#: Texts that are looked at, at most.
MOST = 512

#: Heads that are printed.
_TOP = 10


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a pattern keeps of a model's attention.

    Over the *queries*: the real tokens that have a key under the pattern. Layers and heads count
    from 0.

    Attributes:
        pattern: Its spec string.
        kept: The share of a query's attention that falls on its keys under the pattern, summed over
            the queries of each text. Shape: [texts, layers, heads], float64.
        even: What it would be if a query attended uniformly to all real tokens that the layer
            reaches (all of the text, but for models with local attention). Shape: [texts, layers],
            float64.
        counts: How many queries there are in each text. Shape: [texts, layers], int64.
        tokens: Real tokens of all texts.
    """

    pattern: str
    kept: Tensor
    even: Tensor
    counts: Tensor
    tokens: int

    @cached_property
    def mass(self) -> Tensor:
        """The share `kept`, averaged over all queries; nan in a layer without any.

        Shape: [layers, heads], float64, in [0, 1].
        """
        return self.kept.sum(dim=0) / self.counts.sum(dim=0)[:, None]

    @cached_property
    def uniform(self) -> Tensor:
        """Likewise what it would be under uniform attention. Shape: [layers]."""
        return self.even.sum(dim=0) / self.counts.sum(dim=0)

    @property
    def queries(self) -> tuple[int, ...]:
        """How many queries there are in each layer."""
        return tuple(self.counts.sum(dim=0).tolist())

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return len(self.kept)

    @property
    def lift(self) -> Tensor:
        """Mass over that of uniform attention. Shape: [layers, heads], float64."""
        return self.mass / self.uniform[:, None]

    @property
    def drawing(self) -> Drawing:
        """The mass of each head, as a drawing."""
        return heads_drawing(self)

    def rows(self) -> list[dict[str, float | int]]:
        """A row a head, those with the most mass first."""
        sortable = self.mass.flatten().nan_to_num(-1.0)
        order = sortable.argsort(descending=True, stable=True).tolist()
        heads = self.mass.shape[1]
        return [
            {
                "layer": layer,
                "head": head,
                "mass": float(self.mass[layer, head]),
                "uniform": float(self.uniform[layer]),
                "lift": float(self.lift[layer, head]),
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
        """The heads with the most mass, and all of them together."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE)
        for name in ("layer", "head", "attention mass", "uniform", "lift"):
            table.add_column(name, justify="right")
        rows = self.rows()
        for row in rows[:_TOP]:
            shares = (f"{row['mass']:.1%}", f"{row['uniform']:.1%}", f"{row['lift']:.1f}")
            table.add_row(f"{row['layer']}", f"{row['head']}", *shares)
        mass, uniform = float(self.mass.nanmean()), float(self.uniform.nanmean())
        table.add_section()
        means = (f"{mass:.1%}", f"{uniform:.1%}", f"{mass / uniform:.1f}")
        table.add_row("mean", f"of {len(rows)}", *means)
        fewest, most = min(self.queries), max(self.queries)
        queries = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,} (by layer)"
        return Group(
            Text(f"attention on {self.pattern}"),
            table,
            Text(
                "attention mass: share of a token's attention on these pairs, averaged over the "
                f"tokens that have such a pair, {queries} of {counted(self.tokens, 'real token')} "
                f"in {counted(self.texts, 'text')}; uniform: what uniform attention would put "
                "there; lift: mass / uniform. Layers and heads count from 0."
            ),
        )


def probe(
    model: Any, pattern: Pattern | str, texts: Sequence[Any], *, tokenizer: Any = None
) -> ProbeResult:
    """Measures how much of a model's own attention falls on the pairs of a pattern.

    The model attends densely; nothing is trained and nothing changed. Where a head has a high lift,
    probe other patterns, too: a head may look for something that these pairs happen to have.

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
        UnsupportedModelError: The model's attention cannot be replaced.
        DataError: There are no texts.
        AnnotationError: A row lacks an annotation, or texts cannot be annotated.
    """
    wanted = pattern_of(pattern)
    rows, collator = tokenize(model, texts, tokenizer, wanted.needs, pairs=True, most=MOST)
    return probe_texts(Texts(model, rows, collator, MOST), wanted, collator.tokenizer)


def pattern_of(given: Pattern | str) -> Pattern:
    """A pattern or its spec string as a pattern; a PatternError for a plan or anything else."""
    if isinstance(given, str):
        if given.endswith(".json") or is_plan(given) or is_method(given):
            raise PatternError(f"{given!r} is a plan; attention is measured on a pattern's pairs")
        return parse(given)
    if not isinstance(given, Pattern):
        raise PatternError(f"expected a pattern or its spec string, got {given!r}")
    return given


def probe_texts(texts: Texts, pattern: Pattern, tokenizer: Any = None) -> ProbeResult:
    """`probe` for texts that are tokenised already."""
    (result,) = measure_patterns(texts, [pattern], tokenizer)
    if not any(result.queries):
        raise PatternError(f"no token of these texts has a key under {pattern}")
    return result


def measure_patterns(
    texts: Texts, patterns: Sequence[Pattern], tokenizer: Any = None
) -> list[ProbeResult]:
    """Measures patterns, at least one, text by text in one run of the model."""
    batches: list[list[tuple[Tensor, ...]]] = [[] for _ in patterns]
    tokens = 0
    for seen in observe(texts, Plan.of(reduce(or_, patterns)), None, tokenizer):
        for batch, pattern in zip(batches, patterns, strict=True):
            batch.append(_sums(seen, pattern))
        tokens += int(seen.tokens.valid.sum())
    results = []
    for batch, pattern in zip(batches, patterns, strict=True):
        kept, even, counts = map(torch.cat, zip(*batch, strict=True))
        results.append(ProbeResult(str(pattern), kept, even, counts, tokens))
    return results


def _sums(seen: Observation, pattern: Pattern) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors of `ProbeResult` for the texts of a batch."""
    pairs: Tensor | None = None
    sums = []
    for layer, (weights, reached) in enumerate(zip(seen.weights, seen.open, strict=True)):
        if pairs is None or pattern.varies_by_layer:
            rule = pattern.rule(seen.tokens, layer)
            pairs = rule.dense(seen.tokens.length, seen.tokens.device)
        mask = (pairs & reached).squeeze(1)
        with_key = mask.any(dim=-1)
        share = mask.sum(dim=-1).double() / reached.squeeze(1).sum(dim=-1).clamp(min=1)
        kept = (weights * mask[:, None]).sum(dim=(2, 3)).double()
        even, counts = (share * with_key).sum(dim=1), with_key.sum(dim=1)
        sums.append((kept.cpu(), even.cpu(), counts.cpu()))
    kept, even, counts = (torch.stack(parts, dim=1) for parts in zip(*sums, strict=True))
    return kept, even, counts
