"""What is found out before anything is written: of the model, this machine and the folder."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import BackendError, StudyError
from sparseattn.files import drafts
from sparseattn.models.identity import identity
from sparseattn.study.spec import ExecutorSpec, StudySpec
from sparseattn.study.store import FOLDERS, STUDY
from sparseattn.study.study import Study, differing_versions, first_difference, installed
from sparseattn.study.trial import MODEL, TrialSpec
from sparseattn.training.environment import check_precision

if TYPE_CHECKING:
    from sparseattn.study.trial_cache import TrialCache


def check_fit(spec: StudySpec, cache: TrialCache) -> None:
    """Makes sure that backend, model, training and data of a study fit together."""
    from sparseattn import backend as backends
    from sparseattn.study.run_trial import config_changes
    from sparseattn.tasks.prepare import read_examples

    if spec.backend != backends.AUTO:
        try:
            backends.backend(spec.backend)
        except BackendError as error:
            raise StudyError(f"backend: {error}") from None
    cache.tokenizer(spec.model, spec.task)  # the clearest message about a model that is not there
    trial = TrialSpec(model=spec.model, task=spec.task, training=spec.training)
    config_changes(cache.place(spec.model), trial)
    if spec.training.early_stopping is not None:
        spec.training.held_out_count(read_examples(spec.task).counts[0])


def check_machine(spec: StudySpec, executor: ExecutorSpec) -> None:
    """Makes sure that this machine can train as a study asks; nodes of a cluster find out there."""
    training = spec.training
    if executor.kind != "local":
        return
    check_precision(training.precision, "training.precision: ")
    for index, name in enumerate(training.report_to):
        loggers: Any = import_module("transformers.integrations")  # it has no types
        try:
            for callback in loggers.get_reporting_integration_callbacks([name]):
                callback()
        except (ImportError, RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise StudyError(f"training.report_to[{index}]: {why}") from None


def check_new(folder: Path) -> None:
    """Makes sure that a folder without a study holds nothing else, or that it can be made."""
    try:
        others = {*folder.iterdir()} if folder.is_dir() else set()
        # A run that was killed while it made the folder leaves these behind.
        ours = {folder / name for name in FOLDERS} | drafts(folder, ".json")
        if others - ours or (folder.exists() and not folder.is_dir()):
            raise StudyError(
                f"{folder} is not a study's folder (it has no {STUDY}); give an empty or new one"
            )
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise StudyError(f"cannot read {folder}: {error.strerror}") from None
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is a file"
        raise StudyError(f"cannot write to {folder}: {there} {why}; give another --out")


def check_same(study: Study, spec: StudySpec, folder: Path) -> Study:
    """The study of a folder with what a spec says of its report.

    The data and the model may lie in another place, if they are the same.

    Raises:
        StudyError: Anything else in the spec is not as in the folder; names the first difference.
    """
    ours, theirs = spec.declared, study.spec.declared
    for values in (ours, theirs):
        for name in ("name", "question", "contrasts", "learned_at"):
            del values[name]
    if spec.model != study.spec.model and identity(spec.model) == study.versions.get(MODEL):
        theirs["model"] = spec.model
    moved = ours["task"].pop("data") != theirs["task"].pop("data")
    if difference := first_difference(ours, theirs):
        changed = {name for name in ours if ours[name] != theirs[name]}
        shared = f" and --import {folder}" if changed <= {"arms", "seeds"} else ""
        raise StudyError(f"{folder} holds another study: {difference}; give another --out{shared}")
    same = replace(study, spec=spec)
    if moved:
        check_data(same, folder)
    return same


def check_data(study: Study, folder: Path) -> None:
    """Makes sure that the data are those that a study was begun with."""
    from sparseattn.tasks.prepare import read_examples

    now = read_examples(study.spec.task).fingerprint
    if now != study.fingerprint:
        raise StudyError(
            f"{folder} was begun with other data (fingerprint {study.fingerprint}, now {now}); "
            "bring them back, or give another --out"
        )


def check_versions(study: Study, folder: Path) -> None:
    """Makes sure that the packages are those that a study was begun with."""
    different = differing_versions(study.versions, installed(study.spec, study.arms))
    if different:
        raise StudyError(
            f"{folder} was begun with other versions ({', '.join(different)}); bring those back, "
            "give another --out, or accept the difference with --other-versions"
        )
