"""Running a trial: data, model, plan, training, scores, and what the plan allowed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sparseattn.counting import MeasuredSparsity
from sparseattn.errors import (
    DataError,
    StudyError,
    TrialFailed,
    UnsupportedModelError,
    first_line,
)
from sparseattn.models.describe import measure
from sparseattn.models.load import load_part, quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import sparsified, sparsify
from sparseattn.plan import Plan
from sparseattn.study.arms import DENSE, is_method
from sparseattn.study.run_method import MethodRun, run_method
from sparseattn.study.trial import MODEL, TrialResult, TrialSpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.environment import environment, free_memory
from sparseattn.training.spec import Progress
from sparseattn.training.train import train

__all__ = ["TrialCache", "config_changes", "run_trial"]

#: What configurations call the dropout of attention weights, and dropout elsewhere.
_OF_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout")
_ELSEWHERE = (
    "hidden_dropout_prob",
    "dropout",
    "hidden_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


def run_trial(
    spec: TrialSpec,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    cache: TrialCache | None = None,
) -> TrialResult:
    """Fine-tunes a model and evaluates it.

    The result depends on the spec alone (and, in the last digits, on the machine and its number
    of threads).

    Args:
        spec: The trial.
        folder: Where checkpoints go; a training that was interrupted there is resumed. A temporary
            one by default.
        progress: Called as the trial goes on.
        cache: Keeps the tokenizer and the data from one trial to the next.

    Raises:
        TrialFailed: The loss is not a number, memory ran out, or the data have changed.
        SparseAttnError: The spec asks for something that is not there or does not fit.
    """
    try:
        with quiet(), _out_of_memory(), _checkpoints(folder) as place:
            return _run(spec, place, progress or (lambda *_: None), cache or TrialCache())
    finally:
        free_memory()


def _run(spec: TrialSpec, place: Path, progress: Progress, cache: TrialCache) -> TrialResult:
    begun = 0.0

    def search_progress(phase: str, share: float) -> None:
        nonlocal begun
        begun = share if phase == "train" else begun
        progress(phase, share)

    def train_progress(phase: str, share: float) -> None:
        progress(phase, begun + (1 - begun) * share if phase == "train" else share)

    clock = [time.perf_counter()]
    progress("prepare", 0.0)
    prepared, model = _prepare(spec, cache)
    clock.append(time.perf_counter())
    progress("train", 0.0)
    method = _run_method(spec, model, prepared, cache, place, search_progress)
    training = method.training if method else spec.training
    trained = train(model, prepared, training, spec.seed, place, train_progress)
    clock.append(time.perf_counter())
    progress("evaluate", 0.0)
    scores = prepared.score(trained.predict(prepared))
    measured = _measure(spec, model, prepared, cache)
    clock.append(time.perf_counter())
    laps = [after - before for before, after in pairwise(clock)]
    before = method.steps if method else 0
    return TrialResult(
        metrics=scores.metrics,
        headline=prepared.headline,
        sparsity=measured.sparsity if measured else None,
        block_density=measured.block_density if measured else None,
        mean_degree=measured.mean_degree if measured else None,
        allowed_pairs=int(measured.allowed.sum()) if measured else None,
        valid_pairs=int(measured.valid.sum()) if measured else None,
        sparsity_by_layer=measured.by_layer if measured else [],
        counts={**prepared.counts, "steps": trained.steps + before},
        seconds={
            **dict(zip(("prepare", "train", "evaluate"), laps, strict=True)),
            "total": clock[-1] - clock[0],
        },
        history=[
            *(method.history if method else ()),
            *({**r, "step": r["step"] + before} if "step" in r else r for r in trained.history),
        ],
        predictions=scores.examples,
        environment=environment(str(trained.trainer.args.device), spec.training.precision),
        plan=method.plan if method else None,
        phases=method.phases if method else {},
    )


def _prepare(spec: TrialSpec, cache: TrialCache) -> tuple[Prepared, Any]:
    """The data, and the model with its plan if that is known by now."""
    place, model_now = cache.place(spec.model), spec.versions.get(MODEL)
    if model_now and cache.identity(spec.model) != model_now:
        now = cache.identity(spec.model) or "unknown"
        raise TrialFailed(
            f"the model has changed: it is {now}, and the study was made for {model_now}"
        )
    later = spec.pattern == DENSE or is_method(spec.pattern)
    plan = None if later else Plan.of(spec.pattern, spec.layers)
    changes = config_changes(place, spec)
    needs = plan.needs if plan else frozenset()
    prepared = cache.prepared(spec.model, spec.task, needs, spec.pipeline)
    if spec.data_fingerprint not in ("", prepared.fingerprint):
        raise TrialFailed(
            f"the data have changed: their fingerprint is {prepared.fingerprint}, and the study "
            f"was made for {spec.data_fingerprint}"
        )
    model = prepared.build_model(place, spec.seed, **changes)
    if plan is not None:
        tokenizer = cache.tokenizer(spec.model, spec.task)
        sparsify(model, plan, tokenizer=tokenizer, backend=spec.backend)
    return prepared, model


def _run_method(
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
    found = run_method(spec, model, prepared, tokenizer, place, progress)
    sparsify(model, Plan.from_json(found.plan), tokenizer=tokenizer, backend=spec.backend)
    return found


def config_changes(place: str, spec: TrialSpec) -> dict[str, float]:
    """Changes to the model's configuration, after checking that the texts fit it.

    Args:
        place: Where the model lies.
        spec: The trial.

    Raises:
        DataError: The model has fewer positions than `max_length`.
        StudyError: It has no dropout to change.
    """
    config = load_part(place, "AutoConfig")
    limit = max_tokens(config)
    if limit is not None and spec.task.max_length > limit:
        raise DataError(
            f"task.max_length: {spec.task.max_length} is more than the {limit} positions of "
            f"{spec.model}; choose from 8 to {limit}"
        )
    changes: dict[str, float] = {}
    for value, names in (
        (spec.training.dropout, _OF_ATTENTION + _ELSEWHERE),
        (spec.training.attention_dropout, _OF_ATTENTION),
    ):
        if value is None:
            continue
        known = [name for name in names if hasattr(config, name)]
        if not known:
            raise StudyError(
                f"training: {spec.model} ({config.model_type}) has no dropout; leave it out"
            )
        changes |= dict.fromkeys(known, value)
    return changes


def _measure(
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


@contextmanager
def _checkpoints(folder: Path | None) -> Iterator[Path]:
    """A folder for checkpoints, removed when the trial is done but not when it fails."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="sparseattn-") as name:
            yield Path(name)
        return
    place = folder / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """Says that memory ran out, whoever noticed."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrialFailed(f"out of memory: {first_line(error)}") from error
    except RuntimeError as error:
        if "allocate memory" in str(error) or "out of memory" in str(error):
            raise TrialFailed(f"out of memory: {first_line(error)}") from error
        raise
