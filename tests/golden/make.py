"""Writes the data of the golden tests: what the library computes today.

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m tests.golden.make            # all parts, minutes
    OMP_NUM_THREADS=1 PYTHONPATH=src python -m tests.golden.make results    # some of them

The data say what must not change while modules move and names change. So this is not to be run to
make a test pass: only where a number is meant to change, with the reason in `docs/log.md`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import sparseattn
from tests.golden import measure


def dumped(value: Any, depth: int = 2) -> str:
    """JSON with a line for each case, so that a change shows where it is."""
    if depth and isinstance(value, dict) and value:
        lines = (f"{json.dumps(key)}: {dumped(item, depth - 1)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + "\n}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def main(names: list[str]) -> None:
    """Writes some parts, or all."""
    torch.set_num_threads(1)
    if measure.ROOT not in Path(sparseattn.__file__).parents:
        sys.exit(f"sparseattn is imported from elsewhere: set PYTHONPATH to {measure.ROOT / 'src'}")
    for name in names or measure.PARTS:
        start = time.perf_counter()
        function, digits = measure.PARTS[name]
        text = dumped(measure.rounded(function(), digits)) + "\n"
        (measure.DATA / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text):,} characters, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
