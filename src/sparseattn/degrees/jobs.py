"""What the commands do: from files to files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import DataError, PlanError

if TYPE_CHECKING:
    from sparseattn.degrees.result import Learned

__all__ = ["calibrate_text", "learn_task"]


def learn_task(
    spec: Path,
    sparsity: Sequence[float],
    out: Path,
    model: str | None,
    seed: int,
    options: dict[str, Any],
) -> Iterator[str]:
    """Learns degrees for the task of a study file.

    Args:
        spec: The study file.
        sparsity: One, or several for the frontier.
        out: Where the results go: one folder, or one a sparsity.
        model: Instead of the file's.
        seed: Of training and of irregular plans.
        options: See `sparseattn.degrees.settings.Settings`.

    Yields:
        What to tell the user.
    """
    from sparseattn.degrees.learn import learn_degrees
    from sparseattn.study.file.spec import load_spec
    from sparseattn.study.trials.arguments import arguments
    from sparseattn.study.trials.running import quiet
    from sparseattn.study.trials.trial_cache import TrialCache

    study = load_spec(spec)
    name, cache = model or study.model, TrialCache()
    tokenizer = cache.tokenizer(name, study.task)
    prepared = cache.prepared(name, study.task, frozenset(), study.pipeline)
    made = prepared.build_model(cache.place(name), seed)
    trainer = {
        "data_collator": prepared.collator,
        "eval_dataset": prepared.evaluation,
        "processing_class": tokenizer,
    }
    with quiet(), tempfile.TemporaryDirectory(prefix="sparseattn-") as folder:
        found = learn_degrees(
            made,
            prepared.train,
            list(sparsity) if len(sparsity) > 1 else sparsity[0],
            arguments=arguments(study.training, Path(folder), len(prepared.train), seed),
            trainer=trainer,
            **{**options, "seed": seed},
        )
    results = found if isinstance(found, list) else [found]
    if len(results) > 1:
        yield (
            f"{len(results)} targets share one soft phase: each goes on from the one before it; "
            f"{len(results[-1].history)} soft steps in all"
        )
    for result in results:
        place = out / f"sparsity-{result.stated:g}" if len(results) > 1 else out
        yield from _told(result, place, tokenizer)


def _told(result: Learned, place: Path, tokenizer: Any) -> Iterator[str]:
    written = result.save(place)
    tokenizer.save_pretrained(place / "model")
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
