"""From a spec to a study: data fingerprinted, patterns checked, free numbers solved."""

from __future__ import annotations

import torch

from sparseattn.backend import AUTO
from sparseattn.errors import BackendError, PatternError, PlanError, StudyError
from sparseattn.study import arms
from sparseattn.study.grid import check_count, check_size, patterns, resolve_arms
from sparseattn.study.preflight import check_fit
from sparseattn.study.sample import Sample
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study, installed
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import read_examples

__all__ = ["resolve"]


def resolve(
    spec: StudySpec, most: int, cache: TrialCache, here: bool = True
) -> tuple[Study, Sample, list[str]]:
    """Makes a study of a spec, and finds out what can be wrong with it before anything is written.

    Args:
        spec: The spec.
        most: Trials that the user allows.
        cache: Where tokenizers and data come from.
        here: Whether its trials run on this machine, so that what that cannot do is an error.

    Returns:
        The study, the texts that its patterns were counted on, and notices about the data.

    Raises:
        StudyError: The grid is too large, an arm is wrong or does not fit the model, the backend
            is not there or cannot train like this, early stopping has nothing to look at.
        DataError: The data cannot be read or do not fit the task.
        UnsupportedModelError: The model does not let its attention be replaced.
    """
    check_size(spec, most)
    needs = _needs(spec)
    examples = read_examples(spec.task)
    check_fit(spec, cache)
    sample = Sample(spec, needs, cache)
    resolved = tuple(resolve_arms(spec, sample.measure, sample.longest))
    check_count(len(resolved) * len(spec.seeds), most)
    study = Study(spec, resolved, examples.fingerprint, installed(spec, resolved))
    # A GPU that is here is the workers': what its backends can do is found out there.
    step = here and spec.backend != AUTO and not torch.cuda.is_available()
    for arm in resolved:
        try:
            sample.check(arm.pattern, arm.layers, spec.backend, step)
        except (BackendError, PlanError) as error:
            raise StudyError(f"arm {arm.name!r}: {error}") from None
    return study, sample, examples.notices


def _needs(spec: StudySpec) -> frozenset[str]:
    """The annotations that the patterns of a spec read, their free numbers left open."""
    needs: set[str] = set()
    for index, arm in enumerate(spec.arms):
        try:
            needs.update(*(arms.needs(pattern) for pattern in patterns(arm)))
        except (StudyError, PatternError, PlanError) as error:
            raise StudyError(f"arms[{index}] ({arm.name}): {error}") from None
    return frozenset(needs)
