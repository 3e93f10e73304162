"""What relative positions cost under a plan: MPNet and T5 beside BERT, and their stock models.

Encoders of one size with random weights; all take turns in one process, on one text. Before, the
outputs of the tiled backend are compared with those of the masked one.

    python benchmarks/relative_positions.py [--lengths 1024 ...] [--busy] [--quick] [--again]
"""

from __future__ import annotations

import sys
from functools import partial
from statistics import median
from typing import Any

import torch
import transformers
from torch import Tensor

import sparseattn as sa
from shared import Record, clock, options, parse
from sparseattn.bench.timing import samples, step

PLAN = "neighbor(radius=64) | global(cls)"
COLUMNS = ("tokens, what", "MPNet: stock, sparse", "T5: stock, sparse", "BERT: sparse",
           "MPNet, T5 / BERT", "goal", "difference")  # fmt: skip
WIDTH, HEADS, INNER = 384, 12, 1536
LIMIT = 1e-4


def encoder(family: str, length: int, layers: int) -> Any:
    torch.manual_seed(0)
    if family == "t5":
        sizes = {"num_layers": layers, "d_model": WIDTH, "d_kv": WIDTH // HEADS, "d_ff": INNER}
        config: Any = transformers.T5Config(
            vocab_size=1000, num_heads=HEADS, dropout_rate=0.0, **sizes
        )
        return transformers.T5EncoderModel(config).eval()
    kind = {"mpnet": "MPNet", "bert": "Bert"}[family]
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=1000, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=HEADS,
        intermediate_size=INNER, max_position_embeddings=length + 8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return getattr(transformers, f"{kind}Model")(config, add_pooling_layer=False).eval()


def compared(family: str, batch: dict[str, Tensor], layers: int) -> float:
    """How far the backends are apart."""
    length = batch["input_ids"].shape[1]
    model = encoder(family, length, layers)
    with torch.no_grad():
        tiled, masked = (
            sa.sparsify(model, PLAN, backend=name)(**batch)[0] for name in ("tiled", "masked")
        )
    apart = float((tiled - masked).abs().max())
    if apart > LIMIT:
        sys.exit(f"{family}, {length:,} tokens: backends differ by {apart:.1g}")
    return apart


def measure(length: int, layers: int, repeats: int, busy: bool) -> dict[str, Any]:
    ids = torch.randint(5, 1000, (1, length), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    apart = max(compared(family, batch, layers) for family in ("mpnet", "t5"))
    models = {f"{family}, stock": encoder(family, length, layers) for family in ("mpnet", "t5")}
    for family in ("mpnet", "t5", "bert"):
        models[f"{family}, sparse"] = sa.sparsify(
            encoder(family, length, layers), PLAN, backend="tiled"
        )
    rows, times = [], {}
    for trains in (False, True):
        runs = {
            name: step(partial(lambda m: m(**batch)[0], model), trains)
            for name, model in models.items()
        }
        slow = {name: 2 for name in runs if "stock" in name}
        taken = samples(runs, repeats, most=slow, busy=busy)
        ms = {name: 1000 * median(each) for name, each in taken.items()}
        what = "training step" if trains else "inference"
        ratios = [ms[f"{each}, sparse"] / ms["bert, sparse"] for each in ("mpnet", "t5")]
        rows.append(
            [
                f"{length:,}, {what}",
                *(f"{ms[f'{n}, stock']:.0f}, {ms[f'{n}, sparse']:.0f} ms" for n in ("mpnet", "t5")),
                f"{ms['bert, sparse']:.0f} ms",
                ", ".join(f"{ratio:.2f}" for ratio in ratios),
                "<= 1.2",
                f"{apart:.0e}",
            ]
        )
        times[what] = taken
    return {"rows": rows, "times": times}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--lengths", nargs="*", type=int, default=[512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    args = parse(parser)
    torch.set_num_threads(1)
    layers = 1 if args.quick else 4
    if args.quick:
        args.lengths, args.repeats = args.lengths[:1], 1
    setting = f"{layers} layers of width {WIDTH}, one text, {PLAN.replace('|', 'and')}, one thread"
    record = Record("relative_positions", COLUMNS, f"{setting}; {clock(args.busy)}", args)
    for length in args.lengths:
        record.part(f"{length}", partial(measure, length, layers, args.repeats, args.busy))
    record.done()


if __name__ == "__main__":
    main()
