"""Whether a folder that was begun before may go on: same spec, same data, same packages."""

from __future__ import annotations

from pathlib import Path

from sparseattn.errors import StudyError
from sparseattn.study.file.spec import StudySpec
from sparseattn.study.file.study import Study, differing_versions, first_difference, installed

__all__ = ["check_data", "check_same", "check_versions"]


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
    from sparseattn.tasks.base import fingerprint

    now = fingerprint(study.spec.task)
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
    needs = {need for arm in study.arms for need in arm.needs}
    different = differing_versions(study.versions, installed(needs, study.spec.pipeline))
    if different:
        raise StudyError(
            f"{folder} was begun with other packages ({', '.join(different)}); install those, give "
            "another --out, or accept the difference with --other-versions"
        )
