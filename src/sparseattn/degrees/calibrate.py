"""Calibrated degrees: the attention that each radius keeps, and a knapsack. No training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.backends.base import Call
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.harden import irregular_plan, regular_choice, regular_plan
from sparseattn.degrees.knapsack import tilt
from sparseattn.degrees.menu import Menu
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts, state_of, tokenised
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.attach import sparsified
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = ["calibrate", "calibrated", "distributions", "kept_mass"]

#: Texts that attention is measured on, at most: the mass is an average over thousands of queries.
_SAMPLE = 512

#: Differences of kept mass that a calibrated distribution tells apart.
_SHARPNESS = 0.05


def calibrate(
    model: Any, texts: Sequence[Any], sparsity: float, *, tokenizer: Any = None, **options: Any
) -> Plan:
    """Finds the degrees that keep the most of a model's own attention within a budget.

    Args:
        model: A transformers encoder, with or without a head; it is left as it was.
        texts: Unlabelled texts: strings, or tokenised rows with `input_ids`.
        sparsity: What the plan is to have over these texts, counting everything that is allowed.
        tokenizer: The model's own by default.
        **options: `menu`, `largest`, `elastic`, `shared`, `globals`, `form`, `dense`, `sample` and
            `seed` of `sparseattn.degrees.settings.Settings`.

    Returns:
        The plan; give it to `sparsify`.

    Raises:
        PlanError: The sparsity cannot be reached; the message names the highest that can.
        UnsupportedModelError: The model's attention cannot be seen.
        DataError: There are no texts.
    """
    from transformers import AutoTokenizer, DataCollatorWithPadding

    settings = Settings.of(options)
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(model.name_or_path)
    rows = tokenised(model, texts, tokenizer)
    collator = DataCollatorWithPadding(tokenizer)
    return calibrated(model, rows, collator, sparsity, settings, tokenizer)


def calibrated(
    model: Any, rows: Any, collator: Any, sparsity: float, settings: Settings, tokenizer: Any = None
) -> Plan:
    """`calibrate` for rows that are tokenised already.

    Args:
        model: See `calibrate`.
        rows: Tokenised texts.
        collator: Joins rows into a batch.
        sparsity: See `calibrate`.
        settings: See `calibrate`.
        tokenizer: Tells which tokens are separators, where they are global.
    """
    texts = Texts(model, rows, collator, settings.sample)
    menu, costs = settings.counted(texts, tokenizer)
    costs.check(sparsity)
    kept = kept_mass(Texts(model, rows, collator, _SAMPLE), menu, costs.learned, tokenizer)
    if settings.shared == "layer":
        kept = kept.mean(dim=1, keepdim=True)
    if settings.form == "irregular":
        return irregular_plan(kept / _SHARPNESS, menu, costs, sparsity, settings.seed)
    return regular_plan(regular_choice(kept, costs, sparsity), menu, costs)


def kept_mass(texts: Texts, menu: Menu, layers: Sequence[int], tokenizer: Any = None) -> Tensor:
    """The share of a head's attention that each radius keeps, averaged over queries.

    Over the queries that are not global: those keep everything. Global keys are kept by every
    radius.

    Args:
        texts: What the model attends over.
        menu: Radii and global tokens.
        layers: The layers to look at.
        tokenizer: Tells which tokens are separators, where they are global.

    Returns:
        Not falling along the menu, in [0, 1]. Shape: [layers, heads, entries], float64.

    Raises:
        UnsupportedModelError: The model's attention cannot be seen.
    """
    model = texts.model
    sums: dict[int, Tensor] = {}
    queries = 0
    training = model.training
    model.eval()
    # The pattern is there for the annotations that it needs; what is compiled is dense.
    plan = Plan.of(menu.pattern(0))
    try:
        with sparsified(model, plan, tokenizer=tokenizer), torch.no_grad():
            state = state_of(model)
            if state.mask_route:
                raise UnsupportedModelError(
                    f"{type(model).__name__} computes its own attention, which cannot be seen, so "
                    "its degrees cannot be calibrated"
                )
            state.compiler = lambda tokens: Plan(()).compile(tokens, state.heads, state.windows)
            for batch in texts.batches():
                tokens = state.record.tokens(batch, None)
                with _observed(model, _Recorder(menu, tokens, set(layers), sums).record):
                    model(**batch)
                queries += int((tokens.valid & ~menu.global_mask(tokens)).sum())
    finally:
        model.train(training)
    return torch.stack([sums[layer] for layer in layers]) / max(1, queries)


@contextmanager
def _observed(model: nn.Module, record: Callable[[int, Call], None]) -> Iterator[None]:
    state = state_of(model)
    state.observer = record
    try:
        yield
    finally:
        state.observer = None


class _Recorder:
    """Adds up what each radius keeps of the attention over one batch."""

    def __init__(
        self, menu: Menu, tokens: TokenBatch, layers: set[int], sums: dict[int, Tensor]
    ) -> None:
        self.layers, self.sums, self.entries = layers, sums, len(menu)
        chosen = menu.global_mask(tokens)
        place = torch.arange(tokens.length, device=tokens.device)
        distance = (place[:, None] - place[None, :]).abs().flatten()
        radii = menu.radii(tokens).expand(tokens.batch, -1).contiguous()
        entry = torch.searchsorted(radii, distance.expand(tokens.batch, -1).contiguous())
        shape = (tokens.batch, tokens.length, tokens.length)
        # The first radius that keeps each pair; one more than there are for never.
        self.entry = entry.view(shape).masked_fill(chosen[:, None, :], 0)
        self.counted = (tokens.valid & ~chosen)[:, None, :, None]

    def record(self, layer: int, call: Call) -> None:
        if layer not in self.layers:
            return
        scores = (call.query @ call.key.transpose(-2, -1) * call.scale).float()
        if call.bias is not None:
            scores = scores + call.bias
        weights = scores.masked_fill(~call.rule.finite, float("-inf")).softmax(dim=-1)
        weights = weights * self.counted
        first = torch.stack(
            [
                (weights * (self.entry == entry)[:, None]).sum(dim=(0, 2, 3))
                for entry in range(self.entries)
            ],
            dim=-1,
        )
        kept = first.double().cumsum(dim=-1).cpu()
        self.sums[layer] = self.sums[layer] + kept if layer in self.sums else kept


def distributions(kept: Tensor, costs: Costs, sparsity: float) -> Tensor:
    """Soft choices by kept mass that meet a budget on average: where learning may start from.

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
