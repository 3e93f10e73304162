"""What the commands do: from files to files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import DataError, PlanError, StudyError

if TYPE_CHECKING:
    from sparseattn.degrees.result import Learned
    from sparseattn.study.file.spec import StudySpec

__all__ = ["calibrate_text", "learn_task"]

#: Steps between checkpoints, unless the file says otherwise.
_CHECKPOINTS = 100


def learn_task(
    task: str,
    sparsity: Sequence[float],
    out: Path,
    model: str | None,
    seed: int,
    options: dict[str, Any],
    changes: Sequence[str] = (),
) -> Iterator[str]:
    """Learns degrees for a task; goes on where it was stopped.

    Args:
        task: A study file, or the name of a ready-made task.
        sparsity: One, or several for the frontier.
        out: Where the results go: one folder, or one a sparsity.
        model: Instead of the file's.
        seed: Of training and of irregular plans.
        options: See `sparseattn.degrees.settings.Settings`.
        changes: What to read instead of what the file says: `training.epochs=1`.

    Yields:
        What to tell the user.

    Raises:
        StudyError: There is no such task, or `out` holds the beginnings of something else.
    """
    from sparseattn.degrees.settings import Settings

    study = _study(task, model, changes)
    settings = {**options, "seed": seed}
    Settings.of(settings)
    job = {"study": study.declared, "sparsity": list(sparsity), "settings": settings}
    work = _claimed(out, job)
    results = _learned(study, sparsity, seed, settings, work)
    if len(results) > 1:
        yield (
            f"{len(results)} targets share one soft phase: each goes on from the one before it; "
            f"{len(results[-1].history)} soft steps in all"
        )
    for result in results:
        place = out / f"sparsity-{result.stated:g}" if len(results) > 1 else out
        yield from _told(result, place)
    shutil.rmtree(work)


def _study(task: str, model: str | None, changes: Sequence[str]) -> StudySpec:
    """The study of a file, or one of a ready-made task with everything else by default."""
    from sparseattn.models.names import DEFAULT
    from sparseattn.study.file.reading import changed
    from sparseattn.study.file.spec import load_spec, spec_of

    changes = [*changes, f"model={model}"] if model else list(changes)
    if Path(task).suffix or Path(task).exists():
        return load_spec(task, changes)
    values = {"name": task, "model": DEFAULT, "task": {"use": task}, "arms": ["dense"]}
    return spec_of(changed(values, changes))


def _claimed(out: Path, job: dict[str, Any]) -> Path:
    """The folder that a job keeps its checkpoints in, after making sure that they are its own."""
    work = out / "work"
    path = work / "job.json"
    plain = json.loads(json.dumps(job))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != plain:
        raise StudyError(
            f"{work} holds the beginnings of learning with other settings: give another --out, or "
            "delete it"
        )
    try:
        work.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain), encoding="utf-8")
    except OSError as error:
        raise StudyError(f"cannot write to {out}: {error.strerror}") from None
    return work


def _learned(
    study: StudySpec, sparsity: Sequence[float], seed: int, options: dict[str, Any], work: Path
) -> list[Learned]:
    from transformers.trainer_utils import SaveStrategy

    from sparseattn.degrees.learn import learn_degrees
    from sparseattn.degrees.showing import Shown
    from sparseattn.study.trials.arguments import arguments, seed_of
    from sparseattn.study.trials.running import quiet
    from sparseattn.study.trials.spending import headline
    from sparseattn.study.trials.training import watch
    from sparseattn.study.trials.trial_cache import TrialCache

    cache = TrialCache()
    with quiet():
        prepared = cache.prepared(study.model, study.task, frozenset(), study.pipeline)
        model = prepared.build_model(cache.place(study.model), seed)
    made = arguments(study.training, work, len(prepared.train), seed)
    made.save_strategy, made.save_total_limit = SaveStrategy.STEPS, 1
    made.save_steps = study.training.checkpoint_steps or _CHECKPOINTS
    with quiet(), Shown() as shown:
        trainer = {
            "data_collator": prepared.collator,
            "eval_dataset": prepared.evaluation,
            "processing_class": cache.tokenizer(study.model, study.task),
            "compute_metrics": lambda raw: headline(prepared, raw.predictions),
            "callbacks": [shown, *watch(lambda *_: None, seed_of("order", seed))],
        }
        return learn_degrees(
            model, prepared.train, list(sparsity), arguments=made, trainer=trainer, **options
        )


def _told(result: Learned, place: Path) -> Iterator[str]:
    from transformers import AutoTokenizer

    written = result.save(place)
    source = result.model.name_or_path
    AutoTokenizer.from_pretrained(source).save_pretrained(place / "model")
    yield str(result)
    for path in written:
        yield f"wrote {path}"


def calibrate_text(
    path: Path, sparsity: float, out: Path, model: str, options: dict[str, Any]
) -> Iterator[str]:
    """Calibrates degrees on the lines of a file and writes the plan.

    Args:
        path: A text a line.
        sparsity: What to reach.
        out: Where the plan goes.
        model: See `sparseattn.models.names.resolve`.
        options: See `sparseattn.degrees.settings.Settings`.

    Yields:
        What to tell the user.

    Raises:
        DataError: The file cannot be read or holds no text.
    """
    from transformers import AutoModel, AutoTokenizer

    from sparseattn.degrees.calibrate import calibrate
    from sparseattn.models.names import resolve

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    texts = [line.split("\t")[0].strip() for line in lines]
    place = resolve(model)
    loaded, tokenizer = AutoModel.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    plan = calibrate(
        loaded, [text for text in texts if text], sparsity, tokenizer=tokenizer, **options
    )
    if not out.parent.is_dir():
        raise PlanError(f"cannot write {out}: there is no folder {out.parent}")
    plan.save(out)
    yield str(plan)
    yield f"wrote {out}"
