"""Trials that another study has run: taken over instead of run again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparseattn.errors import StudyError
from sparseattn.study.archive import Archive
from sparseattn.study.locks import TrialLocks
from sparseattn.study.preflight import check_new
from sparseattn.study.record import DONE, FAILED, RESULT
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study, create, first_difference
from sparseattn.study.trial import TrialSpec

__all__ = ["ImportedTrials", "Source", "import_trials", "unpack"]


class Trials(Protocol):
    """Finished trials, in a folder or in a packed study."""

    def finished(self) -> set[str]:
        """Their digests."""
        ...

    def files(self, digest: str) -> dict[str, bytes]:
        """The files of one by name; a `StudyError` if one is damaged."""
        ...


@dataclass(frozen=True)
class Source:
    """Another study.

    Attributes:
        path: Its folder or file.
        study: The study.
        trials: What is finished of it.
    """

    path: Path
    study: Study
    trials: Trials

    @classmethod
    def at(cls, path: str | Path) -> Source:
        """Opens a study's folder, or what `pack` made of it.

        Raises:
            StudyError: It is neither.
        """
        path = Path(path)
        if path.is_file():
            archive = Archive.load(path)
            return cls(path, archive.study, archive)
        return cls(path, Study.load(path), Store(path))


@dataclass
class ImportedTrials:
    """What came of an import.

    Attributes:
        copied: Trials that were copied.
        here: Trials that were here already, or that another process works on.
        failed: Trials that failed there.
        elsewhere: Trials that were run there with other packages than the study says.
        damaged: What is wrong with those that are damaged there.
        difference: Why the studies have no trial in common.
    """

    copied: int = 0
    here: int = 0
    failed: int = 0
    elsewhere: int = 0
    damaged: list[str] = field(default_factory=list)
    difference: str = ""

    @property
    def words(self) -> str:
        """How many were copied, and how many not and why."""
        others = {
            "here already": self.here,
            "failed there": self.failed,
            "run with other packages there": self.elsewhere,
            "damaged there": len(self.damaged),
        }
        parts = [str(self.copied), *(f"{count} {why}" for why, count in others.items() if count)]
        return "; ".join([*parts, *filter(None, [self.difference])])


def import_trials(
    source: Source, study: Study, trials: Iterable[TrialSpec], store: Store, locks: TrialLocks
) -> ImportedTrials:
    """Copies trials of another study that came to their end there and did not here.

    Args:
        source: The other study.
        study: The study that gets them.
        trials: Its trials.
        store: Its folder.
        locks: The locks of this process on that folder.

    Raises:
        StudyError: The folder cannot be written to.
    """
    imported, there = ImportedTrials(), source.trials.finished()
    common = [trial for trial in trials if trial.digest in there]
    if not common:
        difference = first_difference(_decisive(study), _decisive(source.study))
        imported.difference = difference or "its arms and seeds are others"
    for trial in common:
        try:
            files = source.trials.files(trial.digest)
        except StudyError as error:
            imported.damaged.append(str(error))
            continue
        if not _done(files):
            imported.failed += 1
        elif _ran_elsewhere(trial, files):
            imported.elsewhere += 1
        elif _copy(files, trial.digest, store, locks):
            imported.copied += 1
        else:
            imported.here += 1
    return imported


def unpack(file: str | Path, folder: str | Path) -> int:
    """Brings the trials of a packed study into a folder, where they can be reported and resumed.

    Args:
        file: What `pack` wrote.
        folder: A new folder, or one of a study that has these trials, too, such as the same with
            more seeds or arms: it gets those that it lacks.

    Returns:
        How many trials were added.

    Raises:
        StudyError: The file is not a packed study or is damaged, the folder holds something else or
            cannot be written to. A trial is added whole or not at all.
    """
    archive, store = Archive.load(Path(file)), Store(folder)
    trials = {digest: archive.files(digest) for digest in sorted(archive.trials)}
    if not (store.folder / STUDY).is_file():
        check_new(store.folder)
        create(archive.study, store)
    elif not archive.finished() <= {t.digest for t in Study.load(store.folder).trials()[0]}:
        raise StudyError(
            f"{store.folder} holds another study, without some of these trials; to begin a study "
            f"with those that it shares: sparseattn study run SPEC --out DIR --import {file}"
        )
    with TrialLocks(store.folder) as locks:
        return sum(_copy(files, digest, store, locks) for digest, files in trials.items())


def _copy(files: Mapping[str, bytes], digest: str, store: Store, locks: TrialLocks) -> bool:
    """Copies a trial; one that is done replaces a failed one, and any a damaged one.

    Returns:
        Whether it was copied; not, if it is there or another process works on it.
    """
    if not locks.take(digest):
        return False
    try:
        status = store.status(digest)
        if status == DONE or (status == FAILED and not _done(files)):
            return False
        if status:
            store.remove(digest)
        store.put(digest, files)
        return True
    finally:
        locks.release(digest)


def _done(files: Mapping[str, bytes]) -> bool:
    return bool(json.loads(files[RESULT])["status"] == DONE)


def _ran_elsewhere(trial: TrialSpec, files: Mapping[str, bytes]) -> bool:
    """Whether a trial ran with other packages than its spec says, as `--other-versions` allows."""
    ran = json.loads(files["environment.json"])
    return any(
        str(ran[name]).partition("+")[0] != version
        for name, version in trial.versions.items()
        if name in ran
    )


def _decisive(study: Study) -> dict[str, Any]:
    """What two studies must share before any trial of theirs can be the same."""
    spec = study.spec.declared
    task = {name: value for name, value in spec["task"].items() if name != "data"}
    others = {name: spec[name] for name in ("model", "training", "pipeline", "backend")}
    versions, data = dict(study.versions), study.fingerprint
    return {**others, "task": task, "versions": versions, "fingerprint of the data": data}
