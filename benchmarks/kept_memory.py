"""What it saves on a CPU to have glibc keep freed memory, and what memory that takes.

Training steps of the packaged model (bf16, AdamW, texts of random tokens, each batch of another
length), by processes with and without the two variables of `KEEPING`. glibc gives large tensors
back to the system as soon as they are freed, and the system clears their pages anew at every step.
Counted is the time of the processor, the system's part of it apart, and the largest memory. Both
must have the same losses, to the digit. Results go to benchmarks/results/kept_memory.json and .md.

    python benchmarks/kept_memory.py [--steps 24] [--busy] [--quick] [--again]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from options import options, prepare
from record import Record
from sparseattn.models.load import quiet
from sparseattn.models.names import DEFAULT, resolve

#: Never a mapping of its own for a large tensor, never anything back from the end of the heap.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 60)}

#: Lengths of texts in tokens, from and to, and how many make a batch.
SIZES = ((16, 40, 32), (40, 128, 32), (40, 256, 32), (256, 512, 16))


def main() -> None:
    """Runs every size, or, as a child, one."""
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    prepare(given)
    if given.child:
        print(json.dumps(_trained(*given.child, given.steps)))
        return
    sizes = SIZES
    if given.quick:
        given.steps, sizes = min(given.steps, 4), SIZES[:1]
    columns = ("texts", "as it is, s a step", "the system's", "kept", "the system's", "ratio",
               "largest memory, GB", "kept, GB")  # fmt: skip
    how = f"processor time of one thread, {given.steps} steps{', quick' if given.quick else ''}"
    record = Record("kept_memory", columns, how, given.out, given.again)
    for first, last, batch in sizes:
        name = f"{batch} x {first} to {last} tokens"
        record.part(name, lambda at=(first, last, batch), n=name: _part(n, at, given.steps))
    record.done()


def _part(name: str, size: tuple[int, int, int], steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--steps", str(steps), "--child", *map(str, size)]
    plain = {key: value for key, value in os.environ.items() if key not in KEEPING}
    found = {}
    for kind, more in (("as it is", {}), ("kept", KEEPING)):
        done = subprocess.run(
            command, env={**plain, **more}, check=True, capture_output=True, text=True
        )
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    before, after = found.values()
    if before["losses"] != after["losses"]:
        raise SystemExit("the losses differ")
    ratio = sum(before["times"]) / sum(after["times"])
    cells = [
        f"{one / steps:.2f}"
        for each in found.values()
        for one in (sum(each["times"]), each["times"][1])
    ]
    memory = [f"{each['largest']:.1f}" for each in found.values()]
    return {
        "rows": [[name, *cells, f"{ratio:.2f}x", *memory]],
        "times": {kind: each["times"] for kind, each in found.items()},
        "largest": {kind: each["largest"] for kind, each in found.items()},
        "ratio": ratio,
    }


def _trained(first: int, last: int, batch: int, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(resolve(DEFAULT)).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-5)
    lengths = torch.randint(first, last + 1, (steps,)).tolist()
    losses, begun = [], (0.0, 0.0)
    for step, length in enumerate([last, last, *lengths]):  # the first two are to warm up
        if step == 2:
            begun = _spent()
        ids = torch.randint(1000, 20000, (batch, length))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                labels=torch.randint(0, 2, (batch,)),
            ).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    times = [now - then for now, then in zip(_spent(), begun, strict=True)]
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"times": times, "losses": losses, "largest": largest}


def _spent() -> tuple[float, float]:
    """The time of the processor in the process and in the system, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


if __name__ == "__main__":
    main()
