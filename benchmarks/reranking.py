"""Time and memory of a cross-encoder, a pair: dense, and under the plan of Sparse Cross-Encoders.

Models of MiniLM's and BERT-base's sizes with random weights score pairs of a query and a document
that fills the rest; each round has another length of the query, so that lists are made anew. One
thread, float32, processor time, the plans in turns, medians; memory is what a forward pass adds in
a process of its own. Logits are compared with those of the masked backend first. Linux only.

    python benchmarks/reranking.py [--quick] [--again]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from statistics import median
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

import sparseattn as sa
from shared import AT_ONCE, Record, added, alone, options, parse
from sparseattn.bench.timing import samples

COLUMNS = ("pairs of", "plan", "ms a pair", "of dense", "MB added", "of dense", "difference")
QUERY = 18  # tokens of the shortest query, with [CLS] and [SEP]
SEEN = "segment(key=0) | global(cls, columns=false)"
WINDOW = f"neighbor(radius=4) & segment(query=1) | {SEEN}"
PLANS = {
    "dense (SDPA)": "",
    "query blind": f"segment(query=1) | {SEEN}",
    "window of 4": f"{WINDOW} | segment(query=0)",
    "window of 4, query blind": WINDOW,
}
SIZES = {
    "6 x 384": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "12 x 768": {},
}
CLS, SEP = 101, 102


class Tokens:
    """What `sparsify` asks of a tokenizer."""

    cls_token_id, sep_token_id, pad_token_id = CLS, SEP, 0
    bos_token_id = eos_token_id = None


def model_of(size: str, plan: str, backend: str = "tiled") -> Any:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=1, **SIZES[size])).eval()
    return sa.sparsify(model, plan, tokenizer=Tokens(), backend=backend) if plan else model


def batch(pairs: int, length: int, query: int = QUERY) -> dict[str, torch.Tensor]:
    ids = torch.randint(1000, 30000, (pairs, length), generator=torch.Generator().manual_seed(1))
    ids[:, 0], ids[:, query - 1], ids[:, -1] = CLS, SEP, SEP
    types = (torch.arange(length) >= query).long().expand(pairs, -1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types}


@torch.inference_mode()
def run(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs).logits
    return logits


def difference(size: str, plan: str, length: int) -> float:
    """From the masked backend; an error where it is no rounding."""
    if not plan:
        return 0.0
    inputs = batch(2, length)
    ours, theirs = (run(model_of(size, plan, name), inputs) for name in ("tiled", "masked"))
    worst = float((ours - theirs).abs().max())
    if worst > 1e-4:
        sys.exit(f"{plan}: logits differ from those of the masked backend by {worst:.1e}")
    return worst


def timed(size: str, pairs: int, length: int, rounds: int) -> dict[str, float]:
    """Milliseconds a pair, by plan."""

    def rounds_of(plan: str) -> Callable[[], object]:
        model, queries = model_of(size, plan), count(QUERY)
        return lambda: run(model, batch(pairs, length, next(queries)))

    taken = samples({name: rounds_of(plan) for name, plan in PLANS.items()}, rounds, busy=True)
    return {name: 1000 * median(times) / pairs for name, times in taken.items()}


def inside(size: str, name: str, pairs: int, length: int) -> None:
    model = model_of(size, PLANS[name])
    run(model, batch(pairs, 64))
    inputs = batch(pairs, length)
    print(added(lambda: run(model, inputs)))


def megabytes(size: str, name: str, pairs: int, length: int) -> float:
    """What a forward pass adds to a process of its own, a pair."""
    inside = [__file__, "--inside", size, name, pairs, length]
    return float(alone(inside, {**AT_ONCE, "OMP_NUM_THREADS": "1"})) / pairs / 2**20


def part(size: str, pairs: int, length: int, rounds: int) -> dict[str, Any]:
    worst = {name: difference(size, plan, length) for name, plan in PLANS.items()}
    times = timed(size, pairs, length, rounds)
    sizes = {name: megabytes(size, name, pairs, length) for name in PLANS}
    dense = next(iter(PLANS))
    rows = [
        [
            f"{size}, {pairs} x {length} tokens",
            name,
            f"{times[name]:.1f}",
            f"{times[name] / times[dense]:.2f}",
            f"{sizes[name]:.1f}",
            f"{sizes[name] / sizes[dense]:.2f}",
            f"{worst[name]:.0e}",
        ]
        for name in PLANS
    ]
    return {"rows": rows, "milliseconds": times, "megabytes": sizes}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    args = parse(parser)
    torch.set_num_threads(1)
    if args.inside:
        size, name, pairs, length = args.inside
        inside(size, name, int(pairs), int(length))
        return
    setting = "one pair or 8 in a batch, float32, processor time of one thread"
    record = Record("reranking", COLUMNS, setting, args)
    cases = [("6 x 384", 1, 512), ("6 x 384", 8, 512), ("12 x 768", 1, 512)]
    for size, pairs, length in cases[:1] if args.quick else cases:
        rounds = 3 if args.quick else 11
        record.part(f"{size}-{pairs}-{length}", partial(part, size, pairs, length, rounds))
    record.done()


if __name__ == "__main__":
    main()
