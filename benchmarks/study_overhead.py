"""What a study costs beyond its training and evaluation.

    python benchmarks/study_overhead.py studies/layers-sst2.yaml [--workers 2]

Runs a study from nothing, with a fresh cache, and adds up: the time of all workers is the wall time
times their number; training and evaluation are what the trials report; the rest is overhead:
starting, imports, resolving the spec, tokenising, reading the model, counting, storing, and waiting
for the last trial. Goal: at most 3%.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyarrow import csv


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("spec")
    arguments.add_argument("--workers", type=int, default=2)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "out")
        command = [sys.executable, "-m", "sparseattn", "study", "run", given.spec]
        command += ["--out", str(out), "--workers", str(given.workers)]
        started = time.time()
        subprocess.run(
            command, env={**os.environ, "SPARSEATTN_CACHE": str(Path(place, "cache"))}, check=True
        )
        show(out, started, time.time(), given.workers)


def show(out: Path, started: float, ended: float, workers: int) -> None:
    rows = csv.read_csv(out / "results.csv").to_pylist()
    spans = sorted(span(out / "trials" / row["digest"]) for row in rows)
    whole = (ended - started) * workers
    parts = {
        "training": sum(row["seconds_train"] for row in rows),
        "evaluation": sum(row["seconds_evaluate"] for row in rows),
        "before the first trial": (spans[0][0] - started) * workers,
        "preparing": sum(row["seconds_prepare"] for row in rows),
        "imports and storing": sum(end - begin for begin, end in spans)
        - sum(row["seconds"] for row in rows),
    }
    parts["between trials and at the end"] = whole - sum(parts.values())
    for name, seconds in parts.items():
        print(f"{name:30} {seconds:8.1f} s  {seconds / whole:6.2%}")
    outside = 1 - (parts["training"] + parts["evaluation"]) / whole
    print(f"{len(rows)} trials, {workers} workers, {ended - started:.0f} s: overhead {outside:.2%}")


def span(folder: Path) -> tuple[float, float]:
    """When a trial began and ended, by its log and its last file."""
    first: dict[str, Any] = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    return first["time"], (folder / "result.json").stat().st_mtime


if __name__ == "__main__":
    main()
