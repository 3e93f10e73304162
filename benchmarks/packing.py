"""What packing saves: batches of texts of different lengths, padded and packed.

Both models take turns in one process, on the same batch. Before, outputs for real tokens and
gradients of the parameters are compared. The goal is the share of real tokens, and a tenth of it.

    python benchmarks/packing.py [--busy] [--quick] [--again]
"""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import sparseattn as sa
from shared import Record, clock, options, parse
from sparseattn.bench.measure import differences, output_and_gradients
from sparseattn.bench.timing import samples, step

COLUMNS = ("batch, plan, what", "padded", "packed", "packed / padded", "real tokens", "goal",
           "difference")  # fmt: skip
PLANS = ("neighbor(radius=64) | global(cls)", "full()")
#: Largest differences: of outputs, and of gradients as a share of the largest in their tensor.
OUTPUTS, GRADIENTS = 1e-5, 1e-3


def batch_of(texts: int, shortest: int, longest: int) -> dict[str, Tensor]:
    """Random ids; lengths in even steps, in a mixed order."""
    torch.manual_seed(0)
    lengths = torch.linspace(shortest, longest, texts).long()[torch.randperm(texts)]
    mask = (torch.arange(longest)[None] < lengths[:, None]).long()
    ids = torch.randint(1, 1000, (texts, longest)) * mask
    return {"input_ids": ids, "attention_mask": mask}


def encoder(quick: bool) -> Any:
    """An encoder of MiniLM's size, with random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000, hidden_size=384, num_hidden_layers=1 if quick else 6,
        num_attention_heads=12, intermediate_size=1536, max_position_embeddings=512,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The outputs for real tokens. Shape: [real tokens, width]."""
    return model(**batch).last_hidden_state[batch["attention_mask"].bool()]


def compare(stock: Any, plan: str, batch: dict[str, Tensor], rounds: int, args: Any) -> Any:
    """The lines of a plan: inference and a training step."""
    padded = sa.sparsify(deepcopy(stock), plan)
    packed = sa.packed(sa.sparsify(deepcopy(stock), plan))
    ours, theirs = (
        output_and_gradients(partial(states, model, batch), list(model.parameters()))
        for model in (packed, padded)
    )
    output, gradient = differences(ours, theirs)
    if output > OUTPUTS or gradient > GRADIENTS:
        sys.exit(f"{plan}: outputs differ by {output:.1g}, gradients by {gradient:.1g}")
    share = batch["attention_mask"].float().mean().item()
    rows, times = [], {}
    for trains in (False, True):
        what = "training step" if trains else "inference"
        runs = {
            name: step(lambda m=model: states(m, batch), trains)
            for name, model in (("padded", padded), ("packed", packed))
        }
        taken = samples(runs, rounds, busy=args.busy)
        ratio = median(a / b for a, b in zip(taken["packed"], taken["padded"], strict=True))
        cells = [f"{median(taken[name]) * 1e3:.0f} ms" for name in runs]
        name = f"{len(batch['input_ids'])} texts, {plan.replace('|', 'and')}, {what}"
        rows.append(
            [name, *cells, f"{ratio:.3f}", f"{share:.3f}", f"{1.1 * share:.3f}", f"{output:.0e}"]
        )
        times[what] = taken
    return {"rows": rows, "times": times}


def main() -> None:
    args = parse(options(__doc__))
    record = Record("packing", COLUMNS, clock(args.busy), args)
    size, rounds = ((4, 5, 40), 1) if args.quick else ((32, 20, 512), 3)
    for plan in PLANS:
        stock, batch = encoder(args.quick), batch_of(*size)
        record.part(plan, partial(compare, stock, plan, batch, rounds, args))
    record.done()


if __name__ == "__main__":
    main()
