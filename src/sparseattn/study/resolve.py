"""From a spec to a study: data fingerprinted, patterns checked, free numbers solved."""

from __future__ import annotations

import torch

from sparseattn.backend import AUTO
from sparseattn.errors import BackendError, PatternError, PlanError, StudyError
from sparseattn.study import arms
from sparseattn.study.grid import check_count, check_doubles, check_size, resolve, shapes
from sparseattn.study.preflight import check_asked
from sparseattn.study.sample import Sample
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study, installed
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.base import survey

__all__ = ["resolved"]


def resolved(
    spec: StudySpec, most: int, cache: TrialCache, here: bool = True
) -> tuple[Study, Sample, list[str]]:
    """Makes a study of a spec, and finds out what can be wrong with it before anything is written.

    Args:
        spec: The spec.
        most: Trials that the user allows.
        cache: Where tokenizers and data come from.
        here: Whether its trials run on this machine, so that what that cannot do is an error.

    Returns:
        The study, the texts that its patterns were counted on, and what the user should know of
        the data.

    Raises:
        StudyError: The grid is too large, an arm is wrong or does not fit the model, the backend
            is not there or cannot train like this, early stopping has nothing to look at.
        DataError: The data cannot be read or do not fit the task.
        UnsupportedModelError: The model does not let its attention be replaced.
    """
    check_doubles(spec)
    check_size(spec, most)
    needs = _needs(spec)
    found, notices = survey(spec.task)
    check_asked(spec, cache)
    sample = Sample(spec, needs, cache)
    made = tuple(resolve(spec, sample.measure))
    check_count(len(made) * len(spec.seeds), most)
    study = Study(spec, made, found, installed(spec, made))
    # A GPU that is here is the workers': what its backends can do is found out there.
    tried = here and spec.backend != AUTO and not torch.cuda.is_available()
    for arm in made:
        try:
            sample.check(arm.pattern, arm.layers, spec.backend, tried)
        except (BackendError, PlanError) as error:
            raise StudyError(f"arm {arm.name!r}: {error}") from None
    return study, sample, notices


def _needs(spec: StudySpec) -> frozenset[str]:
    """What the patterns of a spec read, their free numbers left open."""
    found: set[str] = set()
    for index, arm in enumerate(spec.arms):
        try:
            found.update(*(arms.needs(pattern) for pattern in shapes(arm)))
        except (StudyError, PatternError, PlanError) as error:
            raise StudyError(f"arms[{index}] ({arm.name}): {error}") from None
    return frozenset(found)
