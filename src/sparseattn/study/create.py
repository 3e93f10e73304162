"""Writing a study's file, once for all processes that may begin it."""

from __future__ import annotations

from sparseattn.errors import StudyError
from sparseattn.study.locks import TrialLocks
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study

__all__ = ["begin"]


def begin(study: Study, store: Store) -> None:
    """Writes the study's file, unless it is there.

    Raises:
        StudyError: It is there, and of another study.
    """
    store.prepare()
    with TrialLocks(store.folder) as locks, locks.study():
        if (store.folder / STUDY).is_file():
            there = Study.load(store.folder)
            if {t.digest for t in there.trials()[0]} != {t.digest for t in study.trials()[0]}:
                raise StudyError(f"{store.folder} holds another study; give another --out")
        store.write(STUDY, study.to_json())
