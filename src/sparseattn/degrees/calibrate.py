"""Calibrated degrees: the importance of each radius to each head, and a knapsack. No training.

Importance is the attention that a radius keeps, or the output. **Attention** kept is a share of the
head's own weights. **Output** kept is how little the model's output changes, to first order and
without labels. With A a head's dense attention, s its scores, o its context and g the gradient of a
number y with respect to o, the gradient with respect to the scores is
`A[q, k] (g[q] . v[k] - g[q] . o[q])`. Keeping only the keys K of a query changes its context by
`sum over K of A[q, k] (v[k] - o[q]) / sum over K of A[q, k]`, exactly, so y changes by

    sum over q of (sum over K of dy/ds[q, k]) / (sum over K of A[q, k]).

With random projections of the output for y, the mean square is the squared change of the output.
One backward pass serves all heads and radii. Unlike the attention kept, this knows what the values
carry (attention to separators often carries nothing), which layers matter, and which tokens the
output is read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs, check_sparsity
from sparseattn.degrees.discretize import Discretized, irregular, regular
from sparseattn.degrees.knapsack import exponential_tilt
from sparseattn.degrees.observe import Observation, observe
from sparseattn.degrees.settings import Settings, split_rows
from sparseattn.degrees.texts import Texts, check, tokenize
from sparseattn.errors import UnsupportedModelError
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = [
    "attention_importance",
    "calibrate",
    "calibrate_rows",
    "distributions",
    "importance_of",
    "output_importance",
]

#: Texts that importance is measured on, at most: it is an average over thousands of queries.
_SAMPLE = 512

#: Differences of importance that a calibrated distribution tells apart.
_SHARPNESS = 0.05

#: Random projections of the output of each batch.
_PROJECTIONS = 4


def calibrate(
    model: Any, texts: Sequence[Any], sparsity: float, *, tokenizer: Any = None, **options: Any
) -> Plan:
    """Finds the degrees that keep the most of what a model does within a budget.

    Args:
        model: A transformers encoder, with or without a head; it is left as it was.
        texts: Unlabelled texts: strings, or tokenised rows with `input_ids`.
        sparsity: What the plan is to have over these texts, counting everything that is allowed.
        tokenizer: The model's own by default.
        **options: `candidates`, `max_radius`, `elastic`, `granularity`, `globals`, `form`,
            `importance`, `dense_layers` and `seed` of `sparseattn.degrees.settings.Settings`.

    Returns:
        The plan; give it to `sparsify`.

    Raises:
        PlanError: The sparsity cannot be reached; the message names the highest that can.
        UnsupportedModelError: The model's attention cannot be replaced, or takes only a boolean
            mask.
        DataError: There are no texts, or it is one string.
    """
    from transformers import AutoTokenizer, DataCollatorWithPadding

    settings = Settings.of(options)
    check_sparsity(sparsity)
    check(model, texts)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(
        model.name_or_path, trust_remote_code=False
    )
    rows = tokenize(model, texts, tokenizer)
    collator = DataCollatorWithPadding(tokenizer)
    return calibrate_rows(model, rows, collator, sparsity, settings, tokenizer).plan


def calibrate_rows(
    model: Any,
    rows: Any,
    collator: Any,
    sparsity: float,
    settings: Settings,
    tokenizer: Any = None,
    evaluation: Any = None,
) -> Discretized:
    """`calibrate` for tokenised rows; `evaluation` are rows for `settings.budget_split`."""
    check(model, rows)
    counted = split_rows(settings.budget_split, rows, evaluation)
    costs = settings.costs(Texts(model, counted, collator), tokenizer)
    costs.check(sparsity)
    importance = importance_of(Texts(model, rows, collator, _SAMPLE), costs, settings, tokenizer)
    if settings.form == "irregular":
        return irregular(importance / _SHARPNESS, costs, sparsity, settings.seed)
    return regular(importance, costs, sparsity)


def importance_of(texts: Texts, costs: Costs, settings: Settings, tokenizer: Any = None) -> Tensor:
    """The importance of each radius to each head, as the settings say.

    Shape: [learned layers, heads or 1, entries], float64.
    """
    measure = attention_importance if settings.importance == "attention" else output_importance
    kept = measure(texts, costs.candidates, costs.learned, tokenizer)
    return kept.mean(dim=1, keepdim=True) if settings.granularity == "layer" else kept


def distributions(importance: Tensor, costs: Costs, sparsity: float) -> Tensor:
    """Log chances by importance that meet a budget on average: where learning may start from.

    Shape, of the importance too: [learned layers, heads or 1, entries], float64.
    """
    layers, groups, entries = importance.shape
    flat = importance.double().reshape(-1, entries).numpy() / _SHARPNESS
    chances = exponential_tilt(flat, costs.items(groups), costs.budget(sparsity))
    return torch.from_numpy(chances).clamp(min=1e-4).log().view(layers, groups, entries)


def attention_importance(
    texts: Texts, candidates: Candidates, layers: Sequence[int], tokenizer: Any = None
) -> Tensor:
    """The share of a head's attention that each radius keeps, averaged over queries.

    Over the queries that are not global: those keep everything. Global keys are kept by every
    radius.

    Returns:
        Not falling along the candidates, in [0, 1]. Shape: [layers, heads, entries], float64.
    """
    sums: list[Tensor] = []
    queries = 0
    for seen in observe(texts, Plan.of(candidates.pattern(0)), layers, tokenizer):
        sum_within = _RadiusSums(candidates, seen.tokens)
        kept = [sum_within(w).sum(dim=(0, 2)).double().cpu() for w in seen.weights]
        sums.append(torch.stack(kept))
        queries += int(sum_within.counted.sum())
    return torch.stack(sums).sum(dim=0) / max(1, queries)


def output_importance(
    texts: Texts, candidates: Candidates, layers: Sequence[int], tokenizer: Any = None
) -> Tensor:
    """How little of the model's output each radius of each head changes.

    The output is the logits of a model with a head, otherwise the last hidden states. The squared
    change is divided by what radius 0 brings about in an average head, and taken from 1.

    Returns:
        Not falling along the candidates, at most 1. Shape: [layers, heads, entries], float64.

    Raises:
        UnsupportedModelError: The model returns neither logits nor hidden states.
    """
    draws = torch.Generator().manual_seed(0)
    sums: list[Tensor] = []
    for seen in observe(texts, Plan.of(candidates.pattern(0)), layers, tokenizer, gradient=True):
        sum_within, read = _RadiusSums(candidates, seen.tokens), _output(seen)
        mass = [sum_within(w).clamp(min=torch.finfo(w.dtype).tiny) for w in seen.weights]
        for draw in range(_PROJECTIONS):
            direction = torch.randn(read.shape, generator=draws).to(read)
            gradients = torch.autograd.grad(
                read, seen.biases, direction, retain_graph=draw + 1 < _PROJECTIONS
            )
            changes = [
                (sum_within(gradient) / kept).sum(dim=2).double().square().sum(dim=0).cpu()
                for gradient, kept in zip(gradients, mass, strict=True)
            ]
            sums.append(torch.stack(changes))
    changed = torch.stack(sums).sum(dim=0)
    unit = changed[..., 0].mean().clamp(min=torch.finfo(torch.float64).tiny)
    return (1 - changed / unit).cummax(dim=-1).values


def _output(seen: Observation) -> Tensor:
    """What a model is used for, with nought at padding. Shape: [batch, ...]."""
    for name in ("logits", "last_hidden_state", "start_logits"):
        output: Tensor | None = getattr(seen.output, name, None)
        if output is None:
            continue
        if name == "start_logits":
            output = torch.stack([output, seen.output.end_logits], dim=-1)
        if output.shape[1] != seen.tokens.length:
            return output
        valid = seen.tokens.valid
        return output * valid.view(*valid.shape, *[1] * (output.dim() - 2))
    raise UnsupportedModelError(
        "the model returns neither logits nor hidden states, so what it loses cannot be measured; "
        "choose importance='attention'"
    )


class _RadiusSums:
    """Sums numbers of pairs over the keys that each radius keeps."""

    def __init__(self, candidates: Candidates, tokens: TokenBatch) -> None:
        chosen = candidates.global_mask(tokens)
        place = torch.arange(tokens.length, device=tokens.device)
        distance = (place[:, None] - place[None, :]).abs().flatten()
        radii = candidates.radii(tokens).expand(tokens.batch, -1).contiguous()
        first = torch.searchsorted(radii, distance.expand(tokens.batch, -1).contiguous())
        shape = (tokens.batch, tokens.length, tokens.length)
        # The first radius that keeps each pair; one more than there are for never.
        self.first = first.view(shape).masked_fill(chosen[:, None, :], 0)
        self.entries = len(candidates)
        self.counted = (tokens.valid & ~chosen)[:, None, :, None]

    def __call__(self, pairs: Tensor) -> Tensor:
        """Shape: [batch, heads, length, length] to [batch, heads, length, entries].

        0 for queries that are global: no radius decides over them.
        """
        sums = [
            (pairs * (self.first == entry)[:, None]).sum(dim=-1) for entry in range(self.entries)
        ]
        return torch.stack(sums, dim=-1).cumsum(dim=-1) * self.counted
