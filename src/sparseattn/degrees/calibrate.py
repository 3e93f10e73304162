"""Calibrated degrees: what each head attends to as it is, and a knapsack. No training.

A combination is worth the share of the head's own attention that it keeps, averaged over the
queries that are not global (those keep everything).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.cost import Costs, check_sparsity
from sparseattn.degrees.discretize import Discretized, discretize
from sparseattn.degrees.observe import observe
from sparseattn.degrees.settings import Settings, split_rows
from sparseattn.degrees.texts import Texts, tokenize
from sparseattn.plan import Plan

#: Texts that attention is measured on, at most: it is an average over thousands of queries.
_SAMPLE = 512

#: The settings that calibration looks at.
_OPTIONS = ("over", "granularity", "globals", "dense_layers")


def calibrate(
    model: Any,
    texts: Sequence[Any],
    sparsity: float,
    *,
    tokenizer: Any = None,
    **options: Any,
) -> Plan:
    """Finds the degrees that keep the most of a model's attention within a budget.

    Args:
        model: A transformers encoder, with or without a head; it is left as it was.
        texts: Unlabelled texts: strings, or tokenised rows with `input_ids`. Strings are parsed if
            a ranking needs that.
        sparsity: What the plan is to have over these texts, counting everything that is allowed.
        tokenizer: The model's own by default.
        **options: `over`, `granularity`, `globals` and `dense_layers` of
            `sparseattn.degrees.settings.Settings`.

    Returns:
        The plan; give it to `sparsify`.

    Raises:
        PlanError: The sparsity cannot be reached; the message names the highest that can.
        UnsupportedModelError: The model's attention cannot be replaced.
        AnnotationError: A ranking needs what the texts do not carry.
        DataError: There are no texts, or it is one string.
    """
    settings = Settings.of(options, _OPTIONS)
    check_sparsity(sparsity)
    rows, collator = tokenize(model, texts, tokenizer, settings.needs)
    return calibrate_rows(model, rows, collator, sparsity, settings, collator.tokenizer).plan


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
    # Every head keeps the global tokens: how much it attends to them does not say what for.
    settings = replace(settings, off=False)
    counted = split_rows(settings.budget_split, rows, evaluation)
    costs = settings.costs(Texts(model, counted, collator), tokenizer)
    costs.check(sparsity)
    attention = attention_by_cell(Texts(model, rows, collator, _SAMPLE), costs, tokenizer)
    if settings.granularity == "layer":
        attention = attention.mean(dim=1, keepdim=True)
    return discretize(attention, costs, sparsity)


def attention_by_cell(texts: Texts, costs: Costs, tokenizer: Any = None) -> Tensor:
    """The share of a head's attention on the pairs of each cell, averaged over queries.

    Over the queries that are not global. Cells that do not occur on the texts of the budget are
    left out.

    Returns:
        At most 1 in sum. Shape: [learned layers, heads, cells of `costs`], float64.
    """
    candidates, layers = costs.candidates, costs.learned
    sums = torch.zeros(len(layers), costs.heads[layers[0]], candidates.cell_count).double()
    queries = 0
    for seen in observe(texts, Plan.of(candidates.needed), layers, tokenizer):
        counted = seen.tokens.valid & ~candidates.global_mask(seen.tokens)
        queries += int(counted.sum())
        by_layer = candidates.cells_of(seen.tokens, layers)
        for index, (cells, weights) in enumerate(zip(by_layer, seen.weights, strict=True)):
            mass = (weights * counted[:, None, :, None]).double().transpose(0, 1).flatten(1).cpu()
            sums[index].index_add_(1, cells.flatten().cpu(), mass)
    return sums[..., costs.numbers] / max(1, queries)
