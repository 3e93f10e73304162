"""Distributions of degrees, and the mask of real numbers that they add to the scores.

A head has a categorical distribution over the candidates of each ranking, and its mask is the union
of what is drawn. Within a ranking candidates are nested, so the chance that it keeps a pair of
level j is the survival function S(j) = sum of p_i over i >= j. Draws are independent, so the chance
that the pair is allowed is 1 - product over rankings of (1 - S). Its log is added to the scores:
every candidate of every ranking gets a gradient at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sparseattn.degrees.candidates import Candidates
from sparseattn.errors import PlanError
from sparseattn.plan import CompiledPlan, Plan
from sparseattn.tokens import TokenBatch

#: Stands for the log of 0. Sums of a few are still finite, so no gradient becomes NaN.
_NEVER = -1e30

#: The logit of the largest degree at the start, where it keeps every pair, and of the global
#: tokens: a chance near 0.9 among seven others.
_DENSE = 4.0


def _log_kept(log_chances: Tensor) -> Tensor:
    """The log of the chance that a degree keeps a pair of each level, the last for never.

    Shape: [..., entries] to [..., entries + 1]; the first is 0.
    """
    survival = log_chances[..., 1:].flip(-1).logcumsumexp(-1).flip(-1)
    return pad(pad(survival, (1, 0)), (0, 1), value=_NEVER)


def log_missed(log_chances: Tensor) -> Tensor:
    """The log of the chance that a degree does not keep a pair of each level, the last for never.

    In log space, as a chance of e^-200 is as good as any. Shape: [..., entries] to
    [..., entries + 1]; the last is 0.
    """
    below = log_chances[..., :-1].logcumsumexp(-1)
    return pad(pad(below, (1, 0), value=_NEVER), (0, 1))


def log_allowed(log_chances: Sequence[Tensor]) -> Tensor:
    """The log of the chance that a pair is allowed, for each cell: every combination of levels.

    1 - prod (1 - S_f) is computed as S_1 + (1 - S_1) (S_2 + (1 - S_2) (...)), which loses nothing
    where a chance is tiny and nothing where it is nearly 1.

    Args:
        log_chances: Of each choice. Shape: [..., entries] each.

    Returns:
        Shape: [..., cells], in the order of `Candidates.cells`, the last 0.
    """
    union: Tensor | None = None
    for chances in reversed(log_chances):
        kept = _log_kept(chances)
        if union is None:
            union = kept
            continue
        missed = log_missed(chances)
        below = missed[..., None] + union[..., None, :]
        union = torch.logaddexp(kept[..., None], below).flatten(-2)
    assert union is not None
    return pad(union, (0, 1))


class Degrees(nn.Module):
    """A distribution over the candidates of each choice for each head, or one for each layer.

    Args:
        candidates: The rankings and their degrees.
        heads: Heads of each layer of the model.
        windows: A radius that each layer never exceeds; None for no limit.
        dense: Layers that stay dense.
        granularity: `head`: each head has distributions of its own; `layer`: each layer has.

    Raises:
        PlanError: No layer is left to learn, or the layers differ in their heads.

    Attributes:
        theta: Logits at temperature 1, choice after choice. They start near the largest degree of
            a ranking that keeps every pair there and with the global tokens, and even elsewhere.
            Shape: [learned layers, heads or 1, entries of all choices].
        temperature: Chances are the softmax of `theta / temperature` over each choice.
    """

    def __init__(
        self,
        candidates: Candidates,
        heads: Sequence[int],
        windows: Sequence[int | None],
        dense: Sequence[int] = (),
        granularity: str = "head",
    ) -> None:
        super().__init__()
        self.candidates, self.heads, self.windows = candidates, tuple(heads), tuple(windows)
        self.layers = [layer for layer in range(len(heads)) if layer not in dense]
        if len({heads[layer] for layer in self.layers}) != 1:
            raise PlanError(f"degrees need layers with equally many heads; got {list(heads)}")
        groups = 1 if granularity == "layer" else heads[self.layers[0]]
        self.theta = nn.Parameter(torch.zeros(len(self.layers), groups, sum(candidates.sizes)))
        with torch.no_grad():
            choices = torch.split(self.theta, list(candidates.sizes), dim=-1)
            full = [ranking.everything for ranking in candidates.rankings]
            full += [True] * (len(candidates.names) - len(full))  # the global tokens
            for starts_full, logits in zip(full, choices, strict=True):
                if starts_full:
                    logits[..., -1] = _DENSE
        self.temperature = 1.0

    def log_chances(self) -> list[Tensor]:
        """Of each choice. Shape: [learned layers, heads or 1, entries] each."""
        choices = torch.split(self.theta / self.temperature, list(self.candidates.sizes), dim=-1)
        return [logits.log_softmax(dim=-1) for logits in choices]

    def chances(self) -> dict[str, Tensor]:
        """Of each choice, by its name. Shape: [learned layers, heads or 1, entries] each."""
        found = zip(self.candidates.names, self.log_chances(), strict=True)
        return {name: chances.detach().exp().cpu() for name, chances in found}

    def tables(self) -> list[Tensor]:
        """The log of the chance that a pair of each cell is allowed, for each learned layer.

        Shape of each: [heads or 1, cells].
        """
        log_chances = self.log_chances()
        layers = range(len(self.layers))
        return [log_allowed([chances[index] for chances in log_chances]) for index in layers]

    def soft_plan(self, tokens: TokenBatch) -> CompiledPlan:
        """The soft mask of a batch, in place of a plan."""
        rules = Plan(()).compile(tokens, self.heads, self.windows).layers
        biases: list[Tensor | None] = [None] * len(self.heads)
        by_layer = self.candidates.cells_of(tokens, self.layers)
        for layer, table, cells in zip(self.layers, self.tables(), by_layer, strict=True):
            biases[layer] = spread(table, cells)
        return CompiledPlan(rules, tuple(biases))


def spread(table: Tensor, cells: Tensor) -> Tensor:
    """Gives each pair the value of its cell.

    Shape: [heads or 1, cells] and [batch, length, length] to [batch, heads or 1, length, length].
    """
    batch, length, _ = cells.shape
    index = cells.view(batch, 1, -1).expand(batch, len(table), -1)
    values = table.expand(batch, -1, -1).gather(2, index)
    return values.view(batch, len(table), length, length)
