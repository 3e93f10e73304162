"""Calibrated degrees: what each radius is worth to each head, and a knapsack. No training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.discretize import irregular_plan, regular_choice, regular_plan
from sparseattn.degrees.importance import WORTHS
from sparseattn.degrees.knapsack import tilt
from sparseattn.degrees.settings import Settings, rows_over
from sparseattn.degrees.texts import Texts, tokenised
from sparseattn.plan import Plan

__all__ = ["Calibrated", "calibrate", "calibrated", "distributions", "measured"]

#: Texts that worth is measured on, at most: it is an average over thousands of queries.
_SAMPLE = 512

#: Differences of worth that a calibrated distribution tells apart.
_SHARPNESS = 0.05


def calibrate(
    model: Any, texts: Sequence[Any], sparsity: float, *, tokenizer: Any = None, **options: Any
) -> Plan:
    """Finds the degrees that keep the most of what a model does within a budget.

    Args:
        model: A transformers encoder, with or without a head; it is left as it was.
        texts: Unlabelled texts: strings, or tokenised rows with `input_ids`.
        sparsity: What the plan is to have over these texts, counting everything that is allowed.
        tokenizer: The model's own by default.
        **options: `menu`, `largest`, `elastic`, `shared`, `globals`, `form`, `worth`, `dense`,
            `sample` and `seed` of `sparseattn.degrees.settings.Settings`.

    Returns:
        The plan; give it to `sparsify`.

    Raises:
        PlanError: The sparsity cannot be reached; the message names the highest that can.
        UnsupportedModelError: The model's attention cannot be seen.
        DataError: There are no texts.
    """
    from transformers import AutoTokenizer, DataCollatorWithPadding

    settings = Settings.of(options)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(
        model.name_or_path, trust_remote_code=False
    )
    rows = tokenised(model, texts, tokenizer)
    collator = DataCollatorWithPadding(tokenizer)
    return calibrated(model, rows, collator, sparsity, settings, tokenizer).plan


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What calibration found.

    Attributes:
        plan: The plan.
        windows: Its windows without the global tokens.
        costs: What each radius costs on the texts.
    """

    plan: Plan
    windows: Plan
    costs: Costs


def calibrated(
    model: Any,
    rows: Any,
    collator: Any,
    sparsity: float,
    settings: Settings,
    tokenizer: Any = None,
    evaluation: Any = None,
) -> Calibrated:
    """`calibrate` for rows that are tokenised already.

    Args:
        model: See `calibrate`.
        rows: Tokenised texts.
        collator: Joins rows into a batch.
        sparsity: See `calibrate`.
        settings: See `calibrate`.
        tokenizer: Tells which tokens are separators, where they are global.
        evaluation: Rows for `settings.over`.
    """
    texts = Texts(model, rows_over(settings.over, rows, evaluation), collator, settings.sample)
    menu, costs = settings.counted(texts, tokenizer)
    costs.check(sparsity)
    sample = Texts(model, rows, collator, _SAMPLE)
    kept = measured(sample, menu, costs.learned, settings, tokenizer)
    if settings.form == "irregular":
        made = [
            irregular_plan(kept / _SHARPNESS, menu, costs, sparsity, settings.seed, only)
            for only in (False, True)
        ]
    else:
        choice = regular_choice(kept, costs, sparsity)
        made = [regular_plan(choice, menu, costs, only) for only in (False, True)]
    return Calibrated(made[0], made[1], costs)


def measured(
    texts: Texts, menu: Candidates, layers: Sequence[int], settings: Settings, tokenizer: Any = None
) -> Tensor:
    """What each radius is worth; see `sparseattn.degrees.importance`.

    Args:
        texts: What it is measured on.
        menu: The radii.
        layers: The layers that learn.
        settings: Which worth, and whether heads share a radius.
        tokenizer: Tells which tokens are separators, where they are global.

    Returns:
        Shape: [layers, heads or 1, entries], float64.
    """
    kept = WORTHS[settings.worth](texts, menu, layers, tokenizer)
    return kept.mean(dim=1, keepdim=True) if settings.shared == "layer" else kept


def distributions(kept: Tensor, costs: Costs, sparsity: float) -> Tensor:
    """Soft choices by worth that meet a budget on average: where learning may start from.

    Args:
        kept: Shape: [learned layers, heads or 1, entries].
        costs: What each choice costs.
        sparsity: The expected sparsity.

    Returns:
        Log chances. Shape: [learned layers, heads or 1, entries], float64.
    """
    layers, groups, entries = kept.shape
    flat = kept.double().reshape(-1, entries).numpy() / _SHARPNESS
    budget = 1 - sparsity - costs.fixed / costs.total
    chances = tilt(flat, costs.items(groups), budget)
    return torch.from_numpy(chances).clamp(min=1e-4).log().view(layers, groups, entries)
