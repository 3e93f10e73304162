"""From a spec to a study: data fingerprinted, patterns checked, free numbers solved."""

from __future__ import annotations

from pathlib import Path

from sparseattn.errors import PatternError, StudyError
from sparseattn.study import arms
from sparseattn.study.grid import check_count, check_size, resolve, shapes
from sparseattn.study.sample import Sample
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study, differing_versions, first_difference, installed
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.base import fingerprint

__all__ = ["check_data", "check_same", "check_versions", "resolved"]


def resolved(spec: StudySpec, most: int, cache: TrialCache) -> tuple[Study, Sample]:
    """Makes a study of a spec, and finds out what can be wrong with it before anything is written.

    Args:
        spec: The spec.
        most: Trials that the user allows.
        cache: Where tokenizers and data come from.

    Returns:
        The study, and the texts that its patterns were counted on.

    Raises:
        StudyError: The grid is too large, or an arm is wrong.
        DataError: The data cannot be read or do not fit the task.
        PlanError: A placement names a layer that the model lacks.
        UnsupportedModelError: The model does not let its attention be replaced.
    """
    check_size(spec, most)
    needs = _needs(spec)
    found = fingerprint(spec.task)
    sample = Sample(spec, needs, cache)
    made = tuple(resolve(spec, sample.measure))
    check_count(len(made) * len(spec.seeds), most)
    study = Study(spec, made, found, installed(needs, spec.pipeline))
    for arm in made:
        sample.check(arm.pattern, arm.layers)
    return study, sample


def _needs(spec: StudySpec) -> frozenset[str]:
    """What the patterns of a spec read, their free numbers left open."""
    found: set[str] = set()
    for index, arm in enumerate(spec.arms):
        try:
            found.update(*(arms.needs(pattern) for pattern in shapes(arm)))
        except (StudyError, PatternError) as error:
            raise StudyError(f"arms[{index}] ({arm.name}): {error}") from None
    return frozenset(found)


def check_same(study: Study, spec: StudySpec, folder: Path) -> Study:
    """Makes sure that a spec is the one that a folder was begun with.

    Its name and question may change, and the place of its data if the data are the same.

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
        del values["name"], values["question"]
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
