"""Whether a folder may be begun, or go on: same spec, same data, same packages."""

from __future__ import annotations

import os
from pathlib import Path

from sparseattn.errors import StudyError
from sparseattn.study.spec import StudySpec
from sparseattn.study.store import FOLDERS, STUDY
from sparseattn.study.study import Study, differing_versions, first_difference, installed

__all__ = ["check_data", "check_new", "check_same", "check_versions"]


def check_new(folder: Path) -> None:
    """Makes sure that a folder without a study holds nothing else either, or that it can be made.

    Raises:
        StudyError: It holds something, or cannot be read or written to.
    """
    try:
        others = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        # A run that was killed while it made the folder leaves these behind.
        ours = {*FOLDERS, *(n for n in others if n.startswith(".") and n.endswith(".json"))}
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
    """Makes sure that a spec is the one that a folder was begun with.

    Its name, question and contrasts may change, and the place of its data if the data are the same.

    Args:
        study: What the folder says.
        spec: What the user says.
        folder: The folder.

    Returns:
        The study, with what may change taken from the spec.

    Raises:
        StudyError: It is not; the message names the first difference.
    """
    ours, theirs = spec.declared, study.spec.declared
    for values in (ours, theirs):
        del values["name"], values["question"], values["contrasts"]
    moved = ours["task"].pop("data") != theirs["task"].pop("data")
    difference = first_difference(ours, theirs)
    if difference:
        raise StudyError(f"{folder} holds another study: {difference}; give another --out")
    made = Study(spec, study.arms, study.fingerprint, study.versions)
    if moved:
        check_data(made, folder)
    return made


def check_data(study: Study, folder: Path) -> None:
    """Makes sure that the data are those that a study was begun with.

    Raises:
        StudyError: They are not.
        DataError: They cannot be read.
    """
    from sparseattn.tasks.prepare import read_examples

    now = read_examples(study.spec.task).fingerprint
    if now != study.fingerprint:
        raise StudyError(
            f"{folder} was begun with other data (fingerprint {study.fingerprint}, now {now}); "
            "bring them back, or give another --out"
        )


def check_versions(study: Study, folder: Path) -> None:
    """Makes sure that the packages are those that a study was begun with.

    Raises:
        StudyError: They are not.
    """
    different = differing_versions(study.versions, installed(study.spec, study.arms))
    if different:
        raise StudyError(
            f"{folder} was begun with other versions ({', '.join(different)}); bring those back, "
            "give another --out, or accept the difference with --other-versions"
        )
