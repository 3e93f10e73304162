"""Resident memory over hundreds of cycles, steps and batches: nothing may pile up.

Each part is a process of its own. A fifth of the rounds fills caches; growth is what resident
memory has gained after the rest, garbage collected and freed memory given back, and `half` what it
had gained in the middle: what piles up goes on growing. Linux only.

    python benchmarks/endurance.py [--quick] [--only cycles training] [--again]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

import sparseattn as sa
from shared import Record, alone, options, parse, status

COLUMNS = ("what", "rounds", "half", "growth", "goal")
#: Megabytes that a part may grow by.
GOAL = 20.0
WINDOW = "neighbor(radius=8) | global(cls)"
MIXED = "neighbor(radius=8) | similarity(k=2) | random(degree=2) | global(cls)"


def model() -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=2000,
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=256,
        )
    )


def batch(number: int, texts: int = 4, longest: int = 384) -> dict[str, torch.Tensor]:
    """Random tokens; each number has another length and other padding."""
    draw = torch.Generator().manual_seed(number)
    lengths = torch.randint(8, longest, (texts,), generator=draw)
    length = int(lengths.max())
    ids = torch.randint(5, 2000, (texts, length), generator=draw)
    real = (torch.arange(length) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": real}


# --- in the process that is measured: a function that does round number n


def cycles() -> Callable[[int], object]:
    """Sparsify, a forward pass, restore; each time under another plan."""
    encoder = model().eval()

    def cycle(number: int) -> None:
        plan = f"neighbor(radius={1 + number % 100}) | random(degree=2, seed={number})"
        sa.sparsify(encoder, plan, backend="tiled" if number % 2 else "masked")
        with torch.inference_mode():
            encoder(**batch(number, longest=64))
        sa.restore(encoder)

    return cycle


def training() -> Callable[[int], object]:
    """Training steps at changing lengths."""
    encoder = sa.sparsify(model().train(), WINDOW, backend="tiled")
    optimizer = torch.optim.AdamW(encoder.parameters())

    def step(number: int) -> None:
        labels = torch.tensor([0, 1, 0, 1])
        encoder(**batch(number), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def batches(plan: str, backend: str) -> Callable[[int], object]:
    """Inference on batches of which none is like another."""
    encoder = sa.sparsify(model().eval(), plan, backend=backend)

    def run(number: int) -> None:
        columns = batch(number)
        special = torch.zeros_like(columns["input_ids"])
        special[:, 0] = 1
        with torch.inference_mode():
            encoder(**columns, special_tokens_mask=special)

    return run


PARTS: dict[str, tuple[str, int, Callable[[], Callable[[int], object]]]] = {
    "cycles": ("sparsify, forward pass, restore", 500, cycles),
    "training": ("training steps of 4 texts of 8 to 384 tokens, tiled", 1000, training),
    "window": ("different batches, a window, tiled", 200, partial(batches, WINDOW, "tiled")),
    "mixed": ("different batches, similar keys, tiled", 200, partial(batches, MIXED, "tiled")),
    "masked": ("different batches, similar keys, masked", 200, partial(batches, MIXED, "masked")),
    "flex": ("different batches, a window, flex", 200, partial(batches, WINDOW, "flex")),
}  # fmt: skip


def resident() -> float:
    """Megabytes, after what is free has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS") / 2**20


def grown(name: str, rounds: int) -> None:
    """Prints the growth after half of the rounds, and after all."""
    run = PARTS[name][2]()
    first = rounds // 5
    marks = []
    for number in range(rounds):
        if number in (first, (first + rounds) // 2):
            marks.append(resident())
        run(number)
    print(*(round(mark - marks[0], 1) for mark in (marks[1], resident())))


# --- in the process that starts those


def part(name: str, quick: bool) -> dict[str, Any]:
    what, rounds, _ = PARTS[name]
    rounds = 20 if quick else rounds
    half, whole = map(float, alone([__file__, "--inside", name, rounds], {}).split())
    met = "met" if whole < GOAL else "missed"
    cells = [what, str(rounds), f"{half:+.1f} MB", f"{whole:+.1f} MB", f"< {GOAL:g} MB: {met}"]
    return {"rows": [cells], "half": half, "growth": whole}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    args = parse(parser)
    if args.inside:
        grown(args.inside[0], int(args.inside[1]))
        return
    record = Record("endurance", COLUMNS, "BERT of 4 layers x 128, float32", args)
    for name in args.only:
        record.part(name, partial(part, name, args.quick))
    record.done()


if __name__ == "__main__":
    main()
