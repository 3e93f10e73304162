"""Doing a trial: data, model, plan, training, scores, and what the plan allowed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from sparseattn.counting import MeasuredSparsity
from sparseattn.errors import DataError, StudyError, UnsupportedModelError
from sparseattn.models.describe import measure
from sparseattn.models.load import load_part, quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import sparsified, sparsify
from sparseattn.plan import Plan
from sparseattn.study.arms import is_method
from sparseattn.study.processes import leads, processes, weigh
from sparseattn.study.run_method import MethodRun, run_method
from sparseattn.study.trial import (
    DENSE,
    MODEL,
    Progress,
    TrialFailed,
    TrialResult,
    TrialSpec,
)
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.environment import environment
from sparseattn.training.train import Run, train

__all__ = ["configured", "run"]

#: What configurations call the dropout of attention weights, and dropout elsewhere.
_OF_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout")
_ELSEWHERE = (
    "hidden_dropout_prob",
    "dropout",
    "hidden_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


def run(spec: TrialSpec, folder: Path | None, progress: Progress, cache: TrialCache) -> TrialResult:
    """See `sparseattn.study.trial.run_trial`."""
    clock = _Clock()
    _check_folder(spec, folder)
    with quiet(), _memory(), _scratch(folder) as place:
        progress("prepare", 0.0)
        prepared, model = _made(spec, cache)
        clock.lap("prepare")
        progress("train", 0.0)
        told = [0.0]
        spent = _spent(spec, model, prepared, cache, place, _noting(progress, told))
        training = spent.training if spent else spec.training
        done = train(model, prepared, training, spec.seed, place, _after(progress, told[0]))
        clock.lap("train")
        progress("evaluate", 0.0)
        scores = prepared.score(done.predict(prepared))
        measured = _measured(spec, model, prepared, cache)
        clock.lap("evaluate")
    return TrialResult(
        metrics=scores.metrics,
        headline=prepared.headline,
        sparsity=measured.sparsity if measured else None,
        block_density=measured.block_density if measured else None,
        mean_degree=measured.mean_degree if measured else None,
        allowed_pairs=int(measured.allowed.sum()) if measured else None,
        valid_pairs=int(measured.valid.sum()) if measured else None,
        sparsity_by_layer=measured.by_layer if measured else [],
        counts={**prepared.counts, "steps": done.steps + (spent.steps if spent else 0)},
        seconds=clock.seconds,
        history=_history(spent, done),
        predictions=scores.examples,
        environment=environment(str(done.trainer.args.device), spec.training.precision),
        plan=spent.plan if spent else None,
        phases=spent.phases if spent else {},
    )


def _check_folder(spec: TrialSpec, folder: Path | None) -> None:
    """Each process would write or look for checkpoints in a temporary folder of its own."""
    training = spec.training
    if (
        folder is None
        and processes() > 1
        and (training.checkpoint_steps or training.early_stopping)
    ):
        raise StudyError("checkpoints of several processes need a folder that all of them see")


def _made(spec: TrialSpec, cache: TrialCache) -> tuple[Prepared, Any]:
    """The data, and the model with its plan if it is known by now."""
    open_plan = spec.pattern == DENSE or is_method(spec.pattern)
    plan = None if open_plan else Plan.of(spec.pattern, spec.layers)
    needs = plan.needs if plan else frozenset()
    place = cache.place(spec.model)
    said = spec.versions.get(MODEL)
    if said and cache.identity(spec.model) != said:
        now = cache.identity(spec.model) or "unknown"
        raise TrialFailed(f"the model has changed: it is {now}, and the study was made for {said}")
    config = configured(place, spec)
    prepared = cache.prepared(spec.model, spec.task, needs, spec.pipeline)
    if spec.data_fingerprint not in ("", prepared.fingerprint):
        raise TrialFailed(
            f"the data have changed: their fingerprint is {prepared.fingerprint}, and the study "
            f"was made for {spec.data_fingerprint}"
        )
    model = prepared.build_model(place, spec.seed, **config)
    weigh(model)
    if plan is not None:
        tokenizer = cache.tokenizer(spec.model, spec.task)
        sparsify(model, plan, tokenizer=tokenizer, backend=spec.backend)
    return prepared, model


def _spent(
    spec: TrialSpec,
    model: Any,
    prepared: Prepared,
    cache: TrialCache,
    place: Path,
    progress: Progress,
) -> MethodRun | None:
    """Lets a method find its plan and puts that on the model; None for other arms."""
    if not is_method(spec.pattern):
        return None
    tokenizer = cache.tokenizer(spec.model, spec.task)
    spent = run_method(spec, model, prepared, tokenizer, place, progress)
    sparsify(model, Plan.from_json(spent.plan), tokenizer=tokenizer, backend=spec.backend)
    return spent


def _noting(progress: Progress, told: list[float]) -> Progress:
    """Remembers how far the training was said to be."""

    def tell(phase: str, share: float) -> None:
        told[0] = share if phase == "train" else told[0]
        progress(phase, share)

    return tell


def _after(progress: Progress, begun: float) -> Progress:
    """Goes on from there."""

    def tell(phase: str, share: float) -> None:
        progress(phase, begun + (1 - begun) * share if phase == "train" else share)

    return tell


def _history(spent: MethodRun | None, done: Run) -> list[dict[str, float]]:
    if spent is None:
        return done.history
    later = [{**r, "step": r["step"] + spent.steps} if "step" in r else r for r in done.history]
    return [*spent.history, *later]


def configured(place: str, spec: TrialSpec) -> dict[str, float]:
    """Changes to the model's configuration, after checking that the texts fit it.

    Args:
        place: Where the model lies.
        spec: The trial.

    Raises:
        DataError: The model has fewer positions than `max_length`.
        StudyError: It has no dropout to change.
    """
    config = load_part(place, "AutoConfig")
    positions = max_tokens(config)
    if positions is not None and spec.task.max_length > positions:
        raise DataError(
            f"task.max_length: {spec.task.max_length} is more than the {positions} positions of "
            f"{spec.model}; choose from 8 to {positions}"
        )
    found: dict[str, float] = {}
    training = spec.training
    for asked, names in (
        (training.dropout, _OF_ATTENTION + _ELSEWHERE),
        (training.attention_dropout, _OF_ATTENTION),
    ):
        known = [name for name in names if hasattr(config, name)]
        if asked is not None and not known:
            raise StudyError(
                f"training: {spec.model} ({config.model_type}) has no dropout; leave it out"
            )
        found |= dict.fromkeys(known, asked) if asked is not None else {}
    return found


def _measured(
    spec: TrialSpec, model: Any, prepared: Prepared, cache: TrialCache
) -> MeasuredSparsity | None:
    """Counts the plan, once for all seeds unless each finds its own.

    Returns:
        None for a dense model whose layers cannot be told apart.
    """
    size = spec.training.evaluation_batch_size
    seed = spec.seed if is_method(spec.pattern) else None
    key = (spec.model, prepared.key, spec.pattern, spec.layers, spec.backend, size, seed)
    if key not in cache.measured:
        try:
            with sparsified(model, "full()") if spec.pattern == DENSE else nullcontext():
                cache.measured[key] = measure(model, prepared.batches(size))
        except UnsupportedModelError:
            return None
    return cache.measured[key]


class _Clock:
    """Seconds between laps, and in all."""

    def __init__(self) -> None:
        self.started = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now

    @property
    def seconds(self) -> dict[str, float]:
        return {**self.laps, "total": self.last - self.started}


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for checkpoints, emptied of them when the trial is done."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="sparseattn-") as made:
            yield Path(made)
        return
    place = folder / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    yield place
    if leads():
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _memory() -> Iterator[None]:
    """Says that memory ran out, whoever noticed."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialFailed(f"out of memory: {_first_line(error)}") from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise TrialFailed(f"out of memory: {_first_line(error)}") from error
        raise


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
