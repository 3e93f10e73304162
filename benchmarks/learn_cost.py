"""What learning degrees costs: `learn_degrees` against a dense fine-tune of the same steps.

Both train the packaged model on the same random texts, in one process, in turns; the dense one is
the stock `Trainer`. A turn is a whole training, its set-up included: counting the texts, and
discretizing. Evaluation is left out on both sides. Goal: at most 2.2 times. Results go to
benchmarks/results/learn_cost.json and .md.

    python benchmarks/learn_cost.py [--turns 3] [--steps 40] [--busy] [--quick] [--again]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import sparseattn as sa
from shared import Record, clock, options, parse
from sparseattn.bench.timing import samples
from sparseattn.models.names import DEFAULT, resolve

#: Texts: their length in tokens, and how many make a batch.
SIZES = ((25, 32), (128, 16), (512, 4))
#: Sparsity to learn: near the highest for the shortest texts, what long ones allow for the others.
SPARSITY = {25: 0.8, 128: 0.9, 512: 0.95}


def main() -> None:
    """Runs every size."""
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    given = parse(parser)
    sizes = SIZES
    if given.quick:
        given.turns, given.steps, sizes = 1, min(given.steps, 10), SIZES[:1]
    columns = ("texts", "dense, s", "learned, s", "ratio")
    how = f"{clock(given.busy)}, {given.steps} steps"
    record = Record("learn_cost", columns, how, given)
    for length, batch in sizes:
        name = f"{batch} x {length} tokens"
        record.part(name, partial(_part, name, length, batch, given))
    record.done()


def _part(name: str, length: int, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    stock = AutoModelForSequenceClassification.from_pretrained(resolve(DEFAULT), num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(resolve(DEFAULT))
    data = rows(length, given.steps * batch // 2)

    def turn(train: Callable[[Any, TrainingArguments], object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(deepcopy(stock), arguments(folder, given.steps, batch))

    def dense(model: Any, made: TrainingArguments) -> None:
        Trainer(model, made, train_dataset=data, data_collator=default_data_collator).train()

    def learned(model: Any, made: TrainingArguments) -> None:
        trainer = {"processing_class": tokenizer}  # similar keys are none of its special tokens
        found = sa.learn_degrees(model, data, SPARSITY[length], arguments=made, trainer=trainer)
        assert abs(found.measured_sparsity - SPARSITY[length]) < 0.005

    runs = {"dense": partial(turn, dense), "learned": partial(turn, learned)}
    taken = samples(runs, given.turns, busy=given.busy)
    ratio = median(b / a for a, b in zip(*taken.values(), strict=True))
    cells = [name, *(f"{median(times):.1f}" for times in taken.values()), f"{ratio:.2f}"]
    return {"rows": [cells], "times": taken, "ratio": ratio, "sparsity": SPARSITY[length]}


def rows(length: int, count: int) -> list[dict[str, Any]]:
    """Texts of random tokens, all as long: padding would be another question."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(1000, 20000, (count, length), generator=draw)
    ids[:, 0], ids[:, -1] = 101, 102
    ones = [1] * length
    return [
        {"input_ids": line, "attention_mask": ones, "labels": place % 2}
        for place, line in enumerate(ids.tolist())
    ]


def arguments(folder: str, steps: int, batch: int) -> TrainingArguments:
    """The same for both."""
    return TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-4,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )


if __name__ == "__main__":
    main()
