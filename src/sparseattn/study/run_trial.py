"""Running a trial: data, model, plan, training, scores, and what the plan allowed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_model, save_model

from sparseattn.degrees.method import is_method
from sparseattn.errors import (
    DataError,
    StudyError,
    TrialFailed,
    UnsupportedModelError,
    first_line,
)
from sparseattn.files import cache_folder, writing_whole
from sparseattn.models.describe import measure
from sparseattn.models.load import load_part, quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import sparsified, sparsify
from sparseattn.plan import Plan
from sparseattn.study import arms
from sparseattn.study.arms import DENSE
from sparseattn.study.run_method import run_method
from sparseattn.study.trial import MODEL, TrialResult, TrialSpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.environment import environment, free_memory
from sparseattn.training.spec import Progress
from sparseattn.training.train import train

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
        folder: Where checkpoints go, and an interrupted training is resumed from; a temporary one
            by default.
        progress: Called as the trial goes on.
        cache: Keeps the tokenizer and the data from one trial to the next.

    Raises:
        TrialFailed: The loss is not a number, memory ran out, or the data have changed.
        SparseAttnError: The spec asks for something that is not there or does not fit.
    """
    try:
        with quiet(), _checkpoints(folder) as place:
            return _run(spec, place, progress or (lambda *_: None), cache or TrialCache())
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if known or any(text in str(error) for text in ("allocate memory", "out of memory")):
            raise TrialFailed(f"out of memory: {first_line(error)}") from error
        raise
    finally:
        free_memory()


def _run(spec: TrialSpec, place: Path, progress: Progress, cache: TrialCache) -> TrialResult:
    searched, seconds = 0.0, {}

    def search_progress(phase: str, share: float) -> None:
        nonlocal searched
        searched = share if phase == "train" else searched
        progress(phase, share)

    def train_progress(phase: str, share: float) -> None:
        progress(phase, searched + (1 - searched) * share if phase == "train" else share)

    @contextmanager
    def timed(phase: str) -> Iterator[None]:
        progress(phase, 0.0)
        start = time.perf_counter()
        yield
        seconds[phase] = time.perf_counter() - start

    with timed("prepare"):
        prepared, model = _prepare(spec, cache, progress)
    with timed("train"):
        method, training = None, spec.training
        if is_method(spec.pattern):
            tokenizer = cache.tokenizer(spec.model, spec.task)
            method = run_method(spec, model, prepared, tokenizer, place, search_progress)
            training, plan = method.training, Plan.from_json(method.plan)
            sparsify(model, plan, tokenizer=tokenizer, backend=spec.backend)
        trained = train(model, prepared, training, spec.seed, place, train_progress)
    with timed("evaluate"):
        scores = prepared.score(trained.predict(prepared))
        measured = _measure(spec, model, prepared, cache)
    before = method.steps if method else 0
    return TrialResult(
        metrics=scores.metrics,
        headline=prepared.headline,
        **measured,
        counts={**prepared.counts, "steps": trained.steps + before},
        seconds=seconds | {"total": sum(seconds.values())},
        history=[
            *(method.history if method else ()),
            *({**r, "step": r["step"] + before} if "step" in r else r for r in trained.history),
        ],
        predictions=scores.examples,
        environment=environment(str(trained.trainer.args.device), spec.training.precision),
        plan=method.plan if method else None,
        phases=method.phases if method else {},
    )


def _prepare(spec: TrialSpec, cache: TrialCache, progress: Progress) -> tuple[Prepared, Any]:
    """The data, and the model with its plan if that is known by now."""
    place, then = cache.place(spec.model), spec.versions.get(MODEL)
    if then and (now := cache.identity(spec.model)) != then:
        raise TrialFailed(
            f"the model has changed: it is {now or 'unknown'}, and the study was made for {then}"
        )
    later = spec.pattern == DENSE or is_method(spec.pattern)
    plan = None if later else Plan.of(spec.pattern, spec.layers)
    changes = config_changes(place, spec)
    needs = arms.needs(spec.pattern) if plan is None else plan.needs
    prepared = cache.prepared(spec.model, spec.task, needs, spec.pipeline)
    if spec.data_fingerprint not in ("", prepared.fingerprint):
        raise TrialFailed(
            f"the data have changed: their fingerprint is {prepared.fingerprint}, and the study "
            f"was made for {spec.data_fingerprint}"
        )
    model = prepared.build_model(place, spec.seed, **changes)
    if spec.start == "fine-tuned":
        _finetune_dense(model, spec, prepared, cache, progress)
    if plan is not None:
        tokenizer = cache.tokenizer(spec.model, spec.task)
        sparsify(model, plan, tokenizer=tokenizer, backend=spec.backend)
    return prepared, model


def _finetune_dense(
    model: Any, spec: TrialSpec, prepared: Prepared, cache: TrialCache, progress: Progress
) -> None:
    """Gives a pretrained model the weights of the dense trial of a trial's seed.

    They are trained by the first trial that needs them, in the phase `prepare`, and kept in the
    cache, under the dense trial's digest; other processes wait for them.
    """
    dense = spec.dense.model_copy(update={"data_fingerprint": prepared.fingerprint})
    folder = (cache.folder or cache_folder()) / "fine-tuned"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dense.digest}.safetensors"

    def told(phase: str, share: float) -> None:
        progress("prepare", share if phase == "train" else 1.0)

    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            unlogged = spec.training.model_copy(update={"report_to": ()})
            with tempfile.TemporaryDirectory(prefix="sparseattn-") as work:
                train(model, prepared, unlogged, spec.seed, Path(work), told)
            with writing_whole(path) as draft:
                save_model(model, str(draft))
    load_model(model, path)
    model.eval()
    # As after loading a pretrained model, whether these weights were trained here or read.
    torch.manual_seed(spec.seed)


def config_changes(place: str, spec: TrialSpec) -> dict[str, float]:
    """Changes to the configuration of the model that lies at `place`, once the texts fit it.

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


def _measure(spec: TrialSpec, model: Any, prepared: Prepared, cache: TrialCache) -> dict[str, Any]:
    """What the plan comes to, counted once for all seeds unless each finds its own.

    Nothing for a dense model whose layers cannot be told apart.
    """
    size = spec.training.evaluation_batch_size
    seed = spec.seed if is_method(spec.pattern) else None
    key = (spec.model, prepared.key, spec.pattern, spec.layers, spec.backend, size, seed)
    if key not in cache.measured:
        try:
            with sparsified(model, "full()") if spec.pattern == DENSE else nullcontext():
                cache.measured[key] = measure(model, prepared.batches(size))
        except UnsupportedModelError:
            return {}
    measured = cache.measured[key]
    return {
        "sparsity": measured.sparsity,
        "block_density": measured.block_density,
        "mean_degree": measured.mean_degree,
        "allowed_pairs": int(measured.allowed.sum()),
        "valid_pairs": int(measured.valid.sum()),
        "sparsity_by_layer": measured.by_layer,
    }


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
