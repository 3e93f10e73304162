"""What the commands do: from files to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import DataError, PlanError, StudyError, reason

if TYPE_CHECKING:
    from sparseattn.degrees.lock import Claim
    from sparseattn.degrees.probe import Probed
    from sparseattn.degrees.result import Learned
    from sparseattn.study.spec import StudySpec

__all__ = ["calibrate_text", "learn_task", "probe_task", "probe_text"]

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
    from sparseattn.degrees.frontier import save
    from sparseattn.degrees.lock import Claim
    from sparseattn.degrees.settings import Settings

    study = _study(task, model, changes)
    settings = {**options, "seed": seed}
    Settings.of(settings)
    if study.training.early_stopping is not None:
        raise StudyError(
            "training.early_stopping: learning degrees takes all its steps, since they are given "
            "out by schedule; leave it out"
        )
    claim = Claim(out, {"study": study.declared, "sparsity": list(sparsity), "settings": settings})
    if claim.finished:
        yield f"{out} holds what was learned in this way already; nothing to do"
        return
    results = _learned(study, sparsity, seed, settings, claim)
    if len(results) > 1:
        yield (
            f"{len(results)} targets share one soft phase: each goes on from the one before it; "
            f"{len(results[-1].history)} soft steps in all"
        )
    for result in results:
        place = out / f"sparsity-{result.stated:g}" if len(results) > 1 else out
        yield from _told(result, place)
    if len(results) > 1:
        for path in save(results, out):
            yield f"wrote {path}"
    claim.finish()


def _study(task: str, model: str | None, changes: Sequence[str]) -> StudySpec:
    """The study of a file, or one of a ready-made task with everything else by default."""
    from sparseattn.models.names import DEFAULT
    from sparseattn.study.reading import changed
    from sparseattn.study.spec import load_spec, spec_of

    changes = [*changes, f"model={model}"] if model else list(changes)
    if Path(task).suffix or Path(task).exists():
        return load_spec(task, changes)
    values = {"name": task, "model": DEFAULT, "task": {"use": task}, "arms": ["dense"]}
    return spec_of(changed(values, changes))


def _learned(
    study: StudySpec, sparsity: Sequence[float], seed: int, options: dict[str, Any], claim: Claim
) -> list[Learned]:
    from transformers.trainer_utils import SaveStrategy

    from sparseattn.degrees.learn import learn_degrees
    from sparseattn.degrees.progress import Shown
    from sparseattn.models.load import quiet
    from sparseattn.study.run_method import headline
    from sparseattn.study.trial_cache import TrialCache
    from sparseattn.training.arguments import arguments, seed_of
    from sparseattn.training.train import watch

    cache = TrialCache()
    with quiet():
        prepared = cache.prepared(study.model, study.task, frozenset(), study.pipeline)
        model = prepared.build_model(cache.place(study.model), seed)
    made = arguments(study.training, claim.work, len(prepared.train), seed)
    made.save_strategy, made.save_total_limit = SaveStrategy.STEPS, 1
    made.save_steps = study.training.checkpoint_steps or _CHECKPOINTS
    with quiet(), Shown() as shown:
        trainer = {
            "data_collator": prepared.collator,
            "eval_dataset": prepared.evaluation,
            "processing_class": cache.tokenizer(study.model, study.task),
            "compute_metrics": lambda raw: headline(prepared, raw.predictions),
            "callbacks": [claim, shown, *watch(lambda *_: None, seed_of("order", seed))],
        }
        return learn_degrees(
            model, prepared.train, list(sparsity), arguments=made, trainer=trainer, **options
        )


def _told(result: Learned, place: Path) -> Iterator[str]:
    from transformers import AutoTokenizer

    from sparseattn.models.load import quiet

    source = result.model.name_or_path
    with quiet():
        written = result.save(place)
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(
            place / "model"
        )
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
    from transformers import DataCollatorWithPadding

    from sparseattn.counting import MeasuredSparsity
    from sparseattn.degrees.calibrate import calibrated
    from sparseattn.degrees.measured import told
    from sparseattn.degrees.settings import Settings
    from sparseattn.degrees.texts import Texts, tokenised
    from sparseattn.models.load import load_part

    settings = Settings.of(options)
    _check_place(out)
    texts = [columns[0] for columns in _lines(path)]
    encoder, tokenizer = load_part(model, "AutoModel"), load_part(model, "AutoTokenizer")
    rows, collator = tokenised(encoder, texts, tokenizer), DataCollatorWithPadding(tokenizer)
    found = calibrated(encoder, rows, collator, sparsity, settings, tokenizer)
    found.plan.save(out)
    counted = Texts(encoder, rows, collator, settings.sample)
    of = (counted.tokens(found.plan, tokenizer), found.costs.heads, found.costs.windows)
    realised = MeasuredSparsity.of(found.plan, *of)
    yield from told(
        sparsity,
        realised.sparsity,
        MeasuredSparsity.of(found.windows, *of).sparsity,
        realised.by_length(),
        f"{len(realised.lengths)} texts of {path}",
    )
    yield str(found.plan)
    yield f"wrote {out}"


def probe_task(
    pattern: str, task: str, out: Path | None, model: str | None, changes: Sequence[str] = ()
) -> Iterator[object]:
    """Measures the attention on a pattern over the training texts of a task.

    Args:
        pattern: A spec string.
        task: See `learn_task`.
        out: A CSV file of all heads.
        model: Instead of the file's.
        changes: See `learn_task`.

    Yields:
        What to tell the user.

    Raises:
        SparseAttnError: The pattern, the task or the file is wrong; see `probe` and `learn_task`.
    """
    from sparseattn.degrees.probe import pattern_of, probed
    from sparseattn.degrees.texts import Texts
    from sparseattn.study.sample import TEXTS, Sample
    from sparseattn.study.trial_cache import TrialCache

    _check_place(out)
    made = pattern_of(pattern)
    sample = Sample(_study(task, model, changes), made.needs, TrialCache())
    texts = Texts(sample.model, sample.texts.evaluation, sample.texts.collator, TEXTS)
    yield from _probed(probed(texts, made, sample.tokenizer), out)


def probe_text(
    pattern: str, path: Path, out: Path | None, model: str, pairs: bool = False
) -> Iterator[object]:
    """The same over the lines of a file.

    Args:
        pattern: A spec string.
        path: The file; of its columns, between tabs, the first is the text.
        out: A CSV file of all heads.
        model: See `sparseattn.models.names.resolve`.
        pairs: Read the first two columns as a pair.

    Yields:
        What to tell the user.

    Raises:
        DataError: The file cannot be read, holds no text, or a line has no second column.
    """
    from sparseattn.degrees.probe import pattern_of, probe
    from sparseattn.models.load import load_part

    _check_place(out)
    made = pattern_of(pattern)
    texts = [columns[: 1 + pairs] for columns in _lines(path, 1 + pairs)]
    encoder, tokenizer = load_part(model, "AutoModel"), load_part(model, "AutoTokenizer")
    yield from _probed(probe(encoder, made, texts, tokenizer=tokenizer), out)


def _probed(found: Probed, out: Path | None) -> Iterator[object]:
    import pandas as pd

    yield found
    if out is not None:
        pd.DataFrame(found.rows()).to_csv(out, index=False)
        yield f"wrote {out}"


def _check_place(out: Path | None) -> None:
    if out is not None and not out.parent.is_dir():
        raise PlanError(f"cannot write {out}: there is no folder {out.parent}")
    if out is not None and out.is_dir():
        raise PlanError(f"cannot write {out}: it is a folder")


def _lines(path: Path, wanted: int = 1) -> list[tuple[str, ...]]:
    """The columns of the lines whose first is not empty.

    Raises:
        DataError: The file cannot be read or holds no text, or a line has fewer columns with text
            than are wanted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None
    columns = [tuple(map(str.strip, line.split("\t"))) for line in lines]
    for number, one in enumerate(columns, 1):
        if one[0] and not all((*one, *[""] * wanted)[:wanted]):
            raise DataError(f"{path}, line {number}: expected {wanted} texts with a tab between")
    if not any(one[0] for one in columns):
        raise DataError(f"{path} holds no text")
    return [one for one in columns if one[0]]
