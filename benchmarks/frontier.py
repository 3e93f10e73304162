"""Does sharing the search phase between sparsities cost accuracy?

    export SPARSEATTN_DATA=~/data          # holds sst2/train.tsv of GLUE
    python benchmarks/frontier.py [--seeds 2] [--out DIR]

`sparseattn learn` for three sparsities at once, where each search phase goes on from the one before
it, against three runs from the pretrained model, on held-out training sentences of SST-2. Results
go to benchmarks/results/frontier.json and .md; DIR keeps what was learned, and what is there is not
learned again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import Record

SPARSITIES = (0.7, 0.78, 0.84)
TASK = Path(__file__).parents[1] / "studies" / "rate-sst2.yaml"


def main() -> None:
    """Learns both ways and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    given = parser.parse_args()
    columns = (
        "target",
        "shared, accuracy",
        "separate, accuracy",
        "shared, steps",
        "separate, steps",
    )
    record = Record("frontier", columns, f"SST-2, held-out sentences, {given.seeds} seeds")
    found = {
        (way, sparsity, seed): learned
        for seed in range(given.seeds)
        for way in ("shared", "separate")
        for sparsity, learned in _learned(way, seed, given.out).items()
    }
    for place, sparsity in enumerate(SPARSITIES):
        record.part(f"{sparsity:g}", lambda s=sparsity, p=place: _part(s, p, found, given.seeds))
    record.done()


def _learned(way: str, seed: int, out: Path) -> dict[float, dict[str, Any]]:
    if way == "shared":
        folder = out / f"shared-{seed}"
        _learn(SPARSITIES, seed, folder)
        places = {s: folder / f"sparsity-{s:g}" for s in SPARSITIES}
    else:
        places = {s: out / f"separate-{s:g}-{seed}" for s in SPARSITIES}
        for sparsity, place in places.items():
            _learn((sparsity,), seed, place)
    return {s: json.loads((place / "learned.json").read_text()) for s, place in places.items()}


def _learn(sparsities: tuple[float, ...], seed: int, out: Path) -> None:
    command = [sys.executable, "-m", "sparseattn.cli", *arguments(sparsities, seed, out)]
    subprocess.run(command, check=True)


def arguments(sparsities: tuple[float, ...], seed: int, out: Path) -> list[str]:
    """What `sparseattn` is called with."""
    listed = ",".join(f"{sparsity:g}" for sparsity in sparsities)
    asked = ["learn", "--task", str(TASK), "--sparsity", listed]
    return [*asked, "--seed", str(seed), "--out", str(out)]


def _part(
    sparsity: float, place: int, found: dict[tuple[str, float, int], Any], seeds: int
) -> dict[str, Any]:
    scores = {
        way: [found[way, sparsity, s]["metrics"]["final"]["eval_accuracy"] for s in range(seeds)]
        for way in ("shared", "separate")
    }
    cells = [
        f"{100 * statistics.mean(each):.1f} ({', '.join(f'{100 * v:.1f}' for v in each)})"
        for each in scores.values()
    ]
    shared = len(found["shared", sparsity, 0]["history"])
    before = len(found["shared", SPARSITIES[place - 1], 0]["history"]) if place else 0
    alone = len(found["separate", sparsity, 0]["history"])
    return {
        "rows": [[f"{sparsity:g}", *cells, f"{shared - before} search", f"{alone} search"]],
        "accuracy": scores,
    }


if __name__ == "__main__":
    main()
