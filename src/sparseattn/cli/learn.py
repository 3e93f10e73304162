"""`sparseattn learn`. Light to import: see `sparseattn.cli.main`."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparseattn.cli import options
from sparseattn.errors import StudyError
from sparseattn.files import drafts, naming_a_full_disk, write_whole
from sparseattn.words import counted

if TYPE_CHECKING:
    from sparseattn.cli.speed import SpeedTarget
    from sparseattn.degrees.learn import Learner
    from sparseattn.degrees.result import Learned
    from sparseattn.degrees.settings import Settings
    from sparseattn.study.spec import StudySpec

EXAMPLES = options.examples(
    "learn --task sst2 --sparsity 0.8 --out runs/learned",
    "learn --task studies/smoke.yaml --sparsity 0.7,0.9 --out runs/two",
)

#: Steps between checkpoints, unless the file says otherwise.
_CHECKPOINTS = 100

#: Whose results, or checkpoints, a folder holds.
_JOB = "job.json"


def learn(
    task: Annotated[
        str,
        typer.Option(help="A study file, of which task and training are used; or a name: sst2."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if need be.")],
    sparsity: Annotated[
        str | None, typer.Option(help="The target, such as 0.8; or several: 0.6,0.8.")
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            help="Instead of a sparsity: a speed-up, predicted as by `bench predict` at --length."
        ),
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens of the texts that --speedup is for.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Instead of the file's model.")] = None,
    over: options.Over = options.DEFAULT_RANKINGS,
    granularity: options.Granularity = "head",
    global_tokens: options.Globals = "cls",
    dense_layers: options.DenseLayers = "",
    search_steps: Annotated[
        float, typer.Option(help="Fraction of the steps in which degrees are learned.")
    ] = 0.5,
    budget_split: Annotated[
        str, typer.Option(help="Texts that the sparsity is met on: train, or evaluation.")
    ] = "train",
    dense_baseline: Annotated[
        bool,
        typer.Option(
            "--dense-baseline", help="Also train the model without a plan, for comparison."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of training.")] = 0,
    changes: options.Changes = None,
) -> None:
    """Learn which connections each head needs, for a target sparsity.

    Stopped, it goes on when it is called again in the same way.
    """
    from sparseattn.cli.speed import SpeedTarget
    from sparseattn.degrees.cost import check_sparsity
    from sparseattn.degrees.settings import Settings

    if sparsity is not None and speedup is not None:
        raise StudyError("--sparsity and --speedup are two targets: give one of them")
    if sparsity is None and speedup is None:
        raise StudyError("give a target: --sparsity, or --speedup and --length")
    if (speedup is None) != (length is None):
        raise StudyError("--speedup and --length belong together")
    parts = [] if sparsity is None else sparsity.split(",")
    targets = [options.number(part, "sparsity") for part in parts]
    settings = Settings(
        over,
        granularity,
        options.globals_of(global_tokens),
        dense_layers=dense_layers,
        search_steps=search_steps,
        budget_split=budget_split,
    )
    for target in targets:
        check_sparsity(target)
    study = options.study_of(task, model, changes)
    if study.training.early_stopping is not None:
        raise StudyError(
            "training.early_stopping: learning degrees takes all its steps, since they are given "
            "out by schedule; leave it out"
        )
    speed = None
    if speedup is not None and length is not None:
        speed = SpeedTarget(study.model, speedup, length, out / "work" / "speed.json")
        speed.check(settings)
    job = {
        "study": study.declared,
        "sparsity": targets,
        "speedup": speedup,
        "length": length,
        "settings": asdict(settings),
        "seed": seed,
        "dense_baseline": dense_baseline,
    }
    if _finished(out, job):
        shutil.rmtree(out / "work", ignore_errors=True)  # it may have been killed just before this
        typer.echo(f"{out} holds what was learned in this way already; nothing to do")
        return
    try:
        results = _learn(study, targets, out, job, speed)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last checkpoint", err=True)
        raise
    _save(results, out)
    if not dense_baseline:
        typer.echo(
            "no dense model was trained to compare with: --dense-baseline trains one for as many "
            "steps and prints its scores here"
        )
    _write_job(out, job)
    shutil.rmtree(out / "work", ignore_errors=True)


def _finished(out: Path, job: dict[str, Any]) -> bool:
    """Whether a folder holds the results of a job; an error if it is another's or unfit."""
    place = next(folder for folder in (out, *out.parents) if folder.exists())
    if not place.is_dir():
        raise StudyError(f"cannot write to {out}: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise StudyError(f"cannot write to {out}: {place} is not to be written")
    for folder, what in ((out / "work", "checkpoints of learning"), (out, "what was learned")):
        path = folder / _JOB
        if not path.is_file():
            continue
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise StudyError(
                f"{path} cannot be read: delete {folder}, or give another --out"
            ) from None
        if other != json.loads(json.dumps(job)):
            raise StudyError(
                f"{folder} holds {what} with other settings: give another --out, or delete it"
            )
    begun = any((folder / _JOB).is_file() for folder in (out, out / "work"))
    work = out / "work"  # where a run that was killed at its first file leaves a draft
    ours = {work} | drafts(work, ".json")
    if not begun and out.is_dir() and {*out.iterdir(), *work.glob("*")} - ours:
        raise StudyError(f"{out} holds something else: give a new or an empty folder as --out")
    return (out / _JOB).is_file()


def _write_job(folder: Path, job: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / _JOB, json.dumps(job))


def _learn(
    study: StudySpec,
    targets: list[float],
    out: Path,
    job: dict[str, Any],
    speed: SpeedTarget | None,
) -> list[Learned]:
    from sparseattn.cli.progress import PhaseProgress
    from sparseattn.cli.speed import in_words
    from sparseattn.degrees.settings import Settings
    from sparseattn.models.load import load_part, quiet
    from sparseattn.models.masks import check_scores

    check_scores(load_part(study.model, "AutoConfig"))
    progress = PhaseProgress()
    if not progress.console.is_terminal:
        target = f"sparsity {', '.join(f'{t:g}' for t in targets)}"
        if speed is not None:
            target = f"a speed-up of {speed.speedup:g} at {speed.length:,} tokens"
        what = f"degrees of {study.model} for {target}"
        progress.say(f"learning {what}, results go to {out}; first, texts are prepared and counted")
    with quiet(), progress.bars:
        settings = Settings(**job["settings"])
        learner = _build_learner(study, out / "work", settings, job["seed"], progress)
        if speed is not None:
            targets = [speed.search_sparsity(learner)]
        learner.check(targets)
        # Not before: a job that is refused leaves no folder.
        _write_job(out / "work", job)
        if speed is not None:
            speed.save()
        results = learner.learn(
            targets, job["dense_baseline"], speed.plan_sparsity if speed is not None else None
        )
    if speed is not None:
        predicted = speed.report(results[0].plan)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "speed.json", json.dumps(predicted, indent=1) + "\n")
        typer.echo(in_words(predicted))
    return results


def _build_learner(
    study: StudySpec, work: Path, settings: Settings, seed: int, progress: Any
) -> Learner:
    from transformers.trainer_utils import SaveStrategy

    from sparseattn.annotations import PARSED
    from sparseattn.degrees.learn import Learner
    from sparseattn.study.trial_cache import TrialCache
    from sparseattn.training.arguments import arguments, seed_of
    from sparseattn.training.train import Watch, headline

    cache = TrialCache()
    prepared = cache.prepared(study.model, study.task, settings.needs & PARSED, study.pipeline)
    model = prepared.build_model(cache.place(study.model), seed)
    how = arguments(study.training, work, len(prepared.train), seed)
    how.save_strategy, how.save_total_limit = SaveStrategy.STEPS, 1
    how.save_steps = study.training.checkpoint_steps or _CHECKPOINTS
    trainer = {
        "data_collator": prepared.collator,
        "eval_dataset": prepared.evaluation,
        "processing_class": cache.tokenizer(study.model, study.task),
        "compute_metrics": lambda raw: headline(prepared, raw.predictions),
        "callbacks": [progress, Watch(lambda *_: None, seed_of("order", seed))],
    }
    return Learner(model, prepared.train, how, trainer, settings)


def _save(results: list[Learned], out: Path) -> None:
    """Writes what was learned, and says what it is and where it lies."""
    from sparseattn.degrees.result import frontier_rows
    from sparseattn.degrees.texts import tokenizer_of
    from sparseattn.models.load import quiet

    several = len(results) > 1
    if several:
        typer.echo(
            f"{len(results)} targets share one search phase: each goes on from the one before it; "
            f"{counted(len(results[-1].history), 'search step')} in all"
        )
    for result in results:
        place = out / f"sparsity-{result.target_sparsity:g}" if several else out
        with quiet(), naming_a_full_disk(place):
            written = result.save(place)
            tokenizer_of(result.model).save_pretrained(place / "model")
        typer.echo(str(result))
        for path in written:
            typer.echo(f"wrote {path}")
    if several:
        import pandas as pd

        from sparseattn.report.figures import learned_figure

        rows = frontier_rows(results)
        pd.DataFrame(rows).round(6).to_csv(out / "frontier.csv", index=False)
        for path in (out / "frontier.csv", learned_figure(rows).save(out / "frontier.png")):
            typer.echo(f"wrote {path}")
