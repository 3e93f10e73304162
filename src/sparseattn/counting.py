"""What a plan allows in a batch, counted: sparsity, degrees, and how far information travels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseattn.pattern import Pattern
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.rules import LayerRule
from sparseattn.tokens import TokenBatch
from sparseattn.words import counted

#: Upper ends of the buckets of lengths, in tokens, inclusive.
_EDGES = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class LayerCount:
    """What one attention layer allows.

    Attributes:
        pattern: The patterns on it.
        heads: Number of heads.
        allowed: Allowed pairs of real tokens, summed over texts and heads.
        valid: Pairs of real tokens, summed over texts and heads.
        degrees: How many queries (a query counts once a head) have each degree.
        reaches_cls: Share of a text's tokens that the first token can have heard from after this
            layer, averaged over texts; in [0, 1].
        receptive_field: The same share, averaged over all real tokens.
        computed: Score entries that the backend computes, padding included; None if not known.
        backend: The backend that computes them.
        reason: Why that one: asked for, or what `auto` expected of each that it chose from.
    """

    pattern: str
    heads: int
    allowed: int
    valid: int
    degrees: dict[int, int]
    reaches_cls: float
    receptive_field: float
    computed: int | None = None
    backend: str = ""
    reason: str = ""

    @property
    def sparsity(self) -> float:
        """Share of the pairs of real tokens that are not allowed, in [0, 1]."""
        return 1 - self.allowed / self.valid if self.valid else 0.0

    @property
    def mean_degree(self) -> float:
        """Keys a query may attend to, averaged over queries and heads."""
        queries = sum(self.degrees.values())
        return self.allowed / queries if queries else 0.0

    @property
    def block_density(self) -> float | None:
        """Score entries computed as a share of the pairs of real tokens; above 1 with padding."""
        return None if self.computed is None or not self.valid else self.computed / self.valid


@dataclass(frozen=True)
class SparsityReport:
    """What a plan allows in a batch.

    Attributes:
        layers: A count an attention layer.
        texts: Texts counted over.
        tokens: Real tokens counted over.
    """

    layers: tuple[LayerCount, ...]
    texts: int
    tokens: int

    @classmethod
    def of(cls, compiled: CompiledPlan, names: Sequence[str]) -> SparsityReport:
        """Counts a compiled plan.

        Args:
            compiled: A plan applied to a batch.
            names: What to call the patterns of each layer.
        """
        valid = compiled.layers[0].valid
        lengths = valid.sum(dim=1)
        received = torch.eye(valid.shape[1], device=valid.device).expand(len(valid), -1, -1)
        counts: dict[int, tuple[int, dict[int, int]]] = {}
        layers = []
        for rule, name in zip(compiled.layers, names, strict=True):
            if id(rule) not in counts:
                counts[id(rule)] = _count(rule)
            allowed, degrees = counts[id(rule)]
            union = rule.dense.any(dim=1)
            received = ((union.float() @ received) > 0).float()
            of_first, of_all = _shares(received, valid)
            total = int((lengths**2).sum()) * rule.heads
            layers.append(LayerCount(name, rule.heads, allowed, total, degrees, of_first, of_all))
        return cls(tuple(layers), texts=len(valid), tokens=int(lengths.sum()))

    @property
    def allowed(self) -> int:
        """Allowed pairs of real tokens, summed over texts, layers and heads."""
        return sum(layer.allowed for layer in self.layers)

    @property
    def valid(self) -> int:
        """Pairs of real tokens, summed over texts, layers and heads."""
        return sum(layer.valid for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """`1 - allowed / valid`, in [0, 1]."""
        return 1 - self.allowed / self.valid if self.valid else 0.0

    @property
    def density(self) -> float:
        """`1 - sparsity`, in [0, 1]."""
        return 1 - self.sparsity

    @property
    def mean_degree(self) -> float:
        """Keys a query may attend to, averaged over queries, layers and heads."""
        queries = sum(sum(layer.degrees.values()) for layer in self.layers)
        return self.allowed / queries if queries else 0.0

    @property
    def degrees(self) -> dict[int, int]:
        """How many queries (a query counts once a layer and head) have each degree."""
        total: Counter[int] = Counter()
        for layer in self.layers:
            total.update(layer.degrees)
        return dict(sorted(total.items()))

    @property
    def block_density(self) -> float | None:
        """Score entries computed as a share of the pairs of real tokens; None if not known."""
        computed = [layer.computed for layer in self.layers if layer.computed is not None]
        if len(computed) < len(self.layers) or not self.valid:
            return None
        return sum(computed) / self.valid

    def __str__(self) -> str:
        """A table, a line a layer, why the backends were chosen, and what it was counted over."""
        head = ("layer", "pattern", "sparsity", "degree", "reaches cls", "backend")
        rows = [
            (
                str(index),
                layer.pattern,
                f"{layer.sparsity:.1%}",
                f"{layer.mean_degree:.1f}",
                f"{layer.reaches_cls:.1%}",
                layer.backend,
            )
            for index, layer in enumerate(self.layers)
        ]
        width = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(size) for cell, size in zip(row, width, strict=True))
            for row in (head, *rows)
        ]
        blocks = "" if self.block_density is None else f", block density {self.block_density:.1%}"
        lines.append(
            f"sparsity {self.sparsity:.1%}{blocks}, mean degree {self.mean_degree:.1f}; "
            f"counted over {counted(self.texts, 'text')}, {counted(self.tokens, 'real token')}, "
            f"{counted(len(self.layers), 'layer')}, all heads"
        )
        lines += _reasons(self.layers)
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True, eq=False)
class MeasuredSparsity:
    """The pairs that a plan allows in each of many texts, counted from its masks.

    Attributes:
        heads: Heads of each layer.
        lengths: Real tokens of each text. Shape: [texts], int64.
        allowed: Allowed pairs, summed over heads. Shape: [texts, layers], int64.
        computed: Score entries that the backends compute, summed over texts, layers and heads,
            padding included; None if they were not counted.
    """

    heads: tuple[int, ...]
    lengths: Tensor
    allowed: Tensor
    computed: int | None = None

    @classmethod
    def of(
        cls,
        plan: Plan,
        batches: Iterable[TokenBatch],
        heads: Sequence[int],
        windows: Sequence[int | None] | None = None,
    ) -> MeasuredSparsity:
        """Counts each pattern of the plan once, whatever heads and layers share it.

        Args:
            plan: The plan.
            batches: The texts.
            heads: Heads of each attention layer of the model.
            windows: A radius that each layer never exceeds; None for no limit.
        """
        lengths, allowed = [], []
        for tokens in batches:
            lengths.append(tokens.lengths.cpu())
            allowed.append(_allowed(plan, tokens, heads, windows or [None] * len(heads)))
        return cls(tuple(heads), torch.cat(lengths), torch.cat(allowed))

    @property
    def valid(self) -> Tensor:
        """Pairs of real tokens, summed over heads. Shape: [texts, layers], int64."""
        return self.lengths[:, None] ** 2 * torch.tensor(self.heads)

    @property
    def sparsity(self) -> float:
        """`1 - allowed / valid`, both summed over texts and layers."""
        return 1 - int(self.allowed.sum()) / int(self.valid.sum())

    @property
    def by_layer(self) -> list[float]:
        """The sparsity of each layer."""
        pairs = zip(self.allowed.sum(0).tolist(), self.valid.sum(0).tolist(), strict=True)
        return [1 - allowed / valid for allowed, valid in pairs]

    @property
    def mean_degree(self) -> float:
        """Keys a query may attend to, averaged over queries, layers and heads."""
        return int(self.allowed.sum()) / (int(self.lengths.sum()) * sum(self.heads))

    @property
    def block_density(self) -> float | None:
        """Score entries computed as a share of the valid pairs; above 1 with padding."""
        return None if self.computed is None else self.computed / int(self.valid.sum())

    def on_layers(self, layers: Sequence[int]) -> MeasuredSparsity:
        """The same of some layers alone."""
        heads = tuple(self.heads[layer] for layer in layers)
        return MeasuredSparsity(heads, self.lengths, self.allowed[:, list(layers)])

    def by_length(self) -> dict[str, float]:
        """The sparsity of the texts of each length that occurs, by bucket, such as `17-32`."""
        shares = {}
        last = max(int(self.lengths.max()), _EDGES[-1] + 1)
        for low, high in zip((0, *_EDGES), (*_EDGES, last), strict=True):
            inside = (self.lengths > low) & (self.lengths <= high)
            if inside.any():
                pairs = int(self.allowed[inside].sum()), int(self.valid[inside].sum())
                shares[f"{low + 1}-{high}"] = 1 - pairs[0] / pairs[1]
        return shares


def _allowed(
    plan: Plan, tokens: TokenBatch, heads: Sequence[int], windows: Sequence[int | None]
) -> Tensor:
    """Shape: [texts, layers], int64."""
    pairs = torch.zeros(tokens.batch, len(heads), dtype=torch.long)
    known: dict[tuple[Pattern, int | None, int], Tensor] = {}
    for layer, groups in enumerate(plan.resolve(heads)):
        window = windows[layer]
        for members, pattern in groups:
            key = (pattern, window, layer if pattern.varies_by_layer else 0)
            if key not in known:
                rule = LayerRule((((0,), pattern.rule(tokens, layer)),), 1, tokens.valid)
                cut = rule if window is None else rule.within(window)
                counts = tokens.lengths**2 if cut.is_full else cut.dense.sum(dim=(1, 2, 3))
                known[key] = counts.cpu()
            pairs[:, layer] += len(members) * known[key]
    return pairs


def _reasons(layers: Sequence[LayerCount]) -> list[str]:
    """A line for each backend and reason, with the layers that share them."""
    places: dict[tuple[str, str], list[int]] = {}
    for index, layer in enumerate(layers):
        if layer.reason:
            places.setdefault((layer.backend, layer.reason), []).append(index)
    return [
        f"{name} on {'every layer' if len(where) == len(layers) else _spelled(where)}: {reason}"
        for (name, reason), where in places.items()
    ]


def _spelled(layers: list[int]) -> str:
    """Layers in words: `layers 0, 2 to 5`."""
    runs: list[list[int]] = []
    for index in layers:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"


def _count(rule: LayerRule) -> tuple[int, dict[int, int]]:
    degrees = rule.dense.sum(dim=-1).expand(-1, rule.heads, -1)
    real = degrees[rule.valid[:, None, :].expand_as(degrees)]
    values, times = torch.unique(real, return_counts=True)
    return int(real.sum()), dict(zip(values.tolist(), times.tolist(), strict=True))


def _shares(received: Tensor, valid: Tensor) -> tuple[float, float]:
    """Share of real tokens heard from: by the first real token, and by the average one."""
    lengths = valid.sum(dim=1)
    nonempty = lengths > 0
    if not nonempty.any():
        return 0.0, 0.0
    real = received * valid[:, None, :] * valid[:, :, None]
    share = real.sum(dim=2) / lengths.clamp(min=1)[:, None]
    first = share.gather(1, valid.float().argmax(dim=1, keepdim=True))[nonempty, 0]
    return float(first.mean()), float(share.sum() / lengths.sum())
