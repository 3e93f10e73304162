"""What fewer bits cost: trained sparse models, and the same weights in bfloat16 and int8.

Fine-tunes MiniLM under a window and a global token, several seeds a task, with the package's own
training in single precision. The trained model then predicts the evaluation split three times: as
it is, in bfloat16, and after `sparseattn.quantize`. Differences are paired by seed and example.
Results go to benchmarks/results/int8_accuracy.json and .md; what is there is not run again.

    SPARSEATTN_DATA=folder python benchmarks/int8_accuracy.py [--tasks sst2 ...] [--quick] [--again]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparseattn as sa
from shared import Record, data_folder, options, parse
from sparseattn.models.load import load_part, quiet
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.stats import LEVEL, OverExamples, compare_runs
from sparseattn.tasks.prepare import Prepared, prepare
from sparseattn.tasks.ready import ready
from sparseattn.tasks.spec import TaskSpec
from sparseattn.training.spec import TrainingSpec
from sparseattn.training.train import train

COLUMNS = ("task", "model", "fp32", "bf16", "bf16 - fp32", "int8", "int8 - fp32", "other answers")
HEADLINE = "accuracy"
KINDS = ("fp32", "bf16", "int8")
#: Of the studies of this model.
RATE = 1e-4
#: Texts that are predicted at a time.
BATCH = 64


@dataclass(frozen=True)
class Setting:
    """How the models of a task are trained.

    Attributes:
        files: Its splits, in the data's folder.
        changes: To the ready-made task.
    """

    plan: str
    files: tuple[str, str]
    changes: dict[str, Any]
    epochs: float
    seeds: int

    def task(self, name: str, folder: Path, quick: bool) -> TaskSpec:
        """The task, or a small part of it."""
        train, evaluation = (str(folder / name / file) for file in self.files)
        less = {"train": {"count": 64}, "evaluation": {"count": 32}} if quick else {}
        files = {"files": {"train": train, "evaluation": evaluation}}
        return TaskSpec(**ready(name, {"data": files, **self.changes, **less}))


TASKS = {
    "sst2": Setting(
        "neighbor(radius=8) | global(cls)",
        ("train.tsv", "dev.tsv"),
        {"train": {"count": 4000, "min_words": 8}, "max_length": 64},
        2,
        3,
    ),
    # Under near keys alone MRPC was not learned (70.1%, seed 0), so it could show nothing.
    "mrpc": Setting(
        "neighbor(radius=8) | similarity(k=8) | global(cls)",
        ("train.jsonl", "dev.jsonl"),
        {},
        3,
        3,
    ),
    "imdb": Setting(
        "neighbor(radius=64) | global(cls)",
        ("train.jsonl.gz", "test.jsonl.gz"),
        {"train": {"count": 2000}, "evaluation": {"count": 2000}},
        2,
        2,
    ),
}


def logits(model: Any, prepared: Prepared) -> np.ndarray:
    """What a model says of the evaluation split. Shape: [inputs, classes]."""
    parts = []
    with torch.no_grad():
        for batch in prepared.batches(BATCH):
            batch.pop("labels", None)
            parts.append(model(**batch).logits.float().numpy())
    return np.concatenate(parts)


def versions(model: Any) -> Iterator[tuple[str, Any]]:
    """The same weights in each kind of numbers."""
    yield "fp32", model
    yield "bf16", deepcopy(model).to(torch.bfloat16)
    yield "int8", sa.quantize(deepcopy(model))


def trained(name: str, data: Path, seed: int, quick: bool) -> dict[str, Any]:
    """Trains a model; the answers of each version to each example."""
    setting, place = TASKS[name], resolve(DEFAULT)
    tokenizer = load_part(DEFAULT, "AutoTokenizer")
    prepared = prepare(setting.task(name, data, quick), tokenizer, sa.Plan.of(setting.plan).needs)
    training = TrainingSpec(epochs=setting.epochs, learning_rate=RATE, length_grouped=True)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        model = prepared.build_model(place, seed)
        sa.sparsify(model, setting.plan, tokenizer=tokenizer)
        train(model, prepared, training, seed, Path(folder), lambda *_: None)
    model.eval()
    answers, metrics = {}, {}
    for kind, version in versions(model):
        scores = prepared.score(logits(version, prepared))
        metrics[kind] = scores.metrics
        answers[kind] = scores.examples.column("prediction").to_pylist()
    labels = scores.examples.column("label").to_pylist()
    cells = [name, f"seed {seed}", *_cells(metrics, answers)]
    return {"rows": [cells], "metrics": metrics, "labels": labels, "answers": answers}


def _cells(metrics: Any, answers: Any) -> list[str]:
    full, half, eighth = (100 * metrics[kind][HEADLINE] for kind in KINDS)
    return [
        f"{full:.1f} ({HEADLINE})", f"{half:.1f}", f"{half - full:+.2f}", f"{eighth:.1f}",
        f"{eighth - full:+.2f}", _changed([answers]),
    ]  # fmt: skip


def _changed(answers: list[Any]) -> str:
    """How many answers are other ones in fewer bits, over the runs."""
    full, *others = (np.array([each[kind] for each in answers]) for kind in KINDS)
    return ", ".join(f"{np.mean(other != full):.1%}" for other in others)


def compared(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Differences of all seeds, with 95% intervals over seeds and examples."""
    labels = np.array([run["labels"] for run in runs])
    right = {k: np.array([run["answers"][k] for run in runs]) == labels for k in KINDS}
    full, n = right["fp32"], labels.shape[1]
    cells = [name, f"{len(runs)} seeds", f"{100 * full.mean():.1f} ({HEADLINE})"]
    for kind in KINDS[1:]:
        scores = np.concatenate([right[kind], full]).astype(float)
        differing = int((np.ptp(scores, axis=0) > 0).sum())
        over = OverExamples.paired(np.cov(scores) / n, n, differing)
        result = compare_runs(right[kind].mean(1), full.mean(1), over, paired=True)
        low, high = 100 * result.low, 100 * result.high
        cells += [
            f"{100 * right[kind].mean():.1f}",
            f"{100 * result.difference:+.2f} ({low:+.2f} to {high:+.2f})",
        ]
    cells.append(_changed([run["answers"] for run in runs]))
    return {"rows": [cells], "level": LEVEL}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    args = parse(parser)
    data = data_folder(parser)
    record = Record("int8_accuracy", COLUMNS, "MiniLM", args)
    for name in args.tasks:
        seeds = range(2 if args.quick else TASKS[name].seeds)
        parts = [f"{name}, seed {seed}" for seed in seeds]
        for seed, part in zip(seeds, parts, strict=True):
            record.part(part, partial(trained, name, data, seed, args.quick))
        runs = [record.results[record.setting][part] for part in parts]
        if all("failed" not in run for run in runs):
            record.part(f"{name}, {len(runs)} seeds", partial(compared, name, runs))
    record.done()


if __name__ == "__main__":
    main()
