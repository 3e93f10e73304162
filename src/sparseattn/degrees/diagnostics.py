"""The degrees of a plan in the terms of LDPC codes, and how far information travels under it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseattn.counting import count_plan
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = ["Diagnostics"]


@dataclass(frozen=True)
class Diagnostics:
    """What a plan's graph looks like on some texts.

    A layer is a bipartite graph from queries to keys, as a code's is from variables to checks.

    Attributes:
        nodes: Share of the queries (a query counts once a layer and head) that have each degree:
            the node perspective.
        edges: Share of the allowed pairs that belong to queries of each degree: the edge
            perspective, degree x share of nodes / mean degree.
        mean_degree: Keys a query may attend to, on average.
        receptive_field: Share of its text that a token can have heard from after each layer.
        reaches_cls: The same for the first token.
    """

    nodes: dict[int, float]
    edges: dict[int, float]
    mean_degree: float
    receptive_field: tuple[float, ...]
    reaches_cls: tuple[float, ...]

    @classmethod
    def of(
        cls,
        plan: Plan,
        batches: Sequence[TokenBatch],
        heads: Sequence[int],
        windows: Sequence[int | None] | None = None,
    ) -> Diagnostics:
        """Counts over some texts.

        Args:
            plan: The plan.
            batches: The texts.
            heads: Heads of each layer of the model.
            windows: A radius that each layer never exceeds.
        """
        degrees: Counter[int] = Counter()
        reports = [count_plan(plan, tokens, heads, windows) for tokens in batches]
        for report in reports:
            degrees.update(report.degrees)
        queries = sum(degrees.values())
        pairs = sum(degree * count for degree, count in degrees.items())
        return cls(
            nodes={degree: degrees[degree] / queries for degree in sorted(degrees)},
            edges={degree: degree * degrees[degree] / pairs for degree in sorted(degrees)},
            mean_degree=pairs / queries,
            receptive_field=_mean(
                [[one.receptive_field for one in r.layers] for r in reports],
                [r.tokens for r in reports],
            ),
            reaches_cls=_mean(
                [[one.reaches_cls for one in r.layers] for r in reports], [r.texts for r in reports]
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "nodes": {str(degree): share for degree, share in self.nodes.items()},
            "edges": {str(degree): share for degree, share in self.edges.items()},
            "mean_degree": self.mean_degree,
            "receptive_field": list(self.receptive_field),
            "reaches_cls": list(self.reaches_cls),
        }


def _mean(rows: list[list[float]], weights: list[int]) -> tuple[float, ...]:
    total = sum(weights)
    return tuple(
        sum(value * weight for value, weight in zip(column, weights, strict=True)) / total
        for column in zip(*rows, strict=True)
    )
