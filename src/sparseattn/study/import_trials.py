"""Trials that another study has run: taken over instead of run again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparseattn.errors import StudyError
from sparseattn.study.locks import TrialLocks
from sparseattn.study.packed import read_packed
from sparseattn.study.record import DONE, FAILED, RESULT
from sparseattn.study.store import Store
from sparseattn.study.study import Study, first_difference
from sparseattn.study.trial import TrialSpec

__all__ = ["ImportedTrials", "Source", "copy", "take"]


class Trials(Protocol):
    """Finished trials, in a folder or in a packed study."""

    def finished(self) -> set[str]:
        """Their digests."""
        ...

    def files(self, digest: str) -> Mapping[str, bytes]:
        """The files of one by name; a `StudyError` if one is damaged."""
        ...


@dataclass(frozen=True)
class Source:
    """Another study.

    Attributes:
        place: Its folder or file.
        study: The study.
        trials: What is finished of it.
    """

    place: Path
    study: Study
    trials: Trials

    @classmethod
    def at(cls, place: str | Path) -> Source:
        """Opens a study's folder, or what `pack` made of it.

        Raises:
            StudyError: It is neither.
        """
        path = Path(place)
        if path.is_file():
            packed = read_packed(path)
            return cls(path, packed.study, packed)
        return cls(path, Study.load(path), Store(path))


@dataclass
class ImportedTrials:
    """What came of taking trials over.

    Attributes:
        copied: Trials that were copied.
        here: Trials that were here already, or that another process works on.
        failed: Trials that failed there.
        elsewhere: Trials that were made there with other packages than the study says.
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
        """How many, and what was not taken over."""
        others = {
            "here already": self.here,
            "failed there": self.failed,
            "run with other packages there": self.elsewhere,
            "damaged there": len(self.damaged),
        }
        said = [f"{count} {what}" for what, count in others.items() if count]
        return "; ".join([str(self.copied), *said, *([self.difference] if self.difference else [])])


def take(
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
    taken, there = ImportedTrials(), source.trials.finished()
    common = [trial for trial in trials if trial.digest in there]
    if not common:
        found = first_difference(_decisive(study), _decisive(source.study))
        taken.difference = found or "its arms and seeds are others"
    for trial in common:
        try:
            files = source.trials.files(trial.digest)
        except StudyError as error:
            taken.damaged.append(str(error))
            continue
        if not _done(files):
            taken.failed += 1
        elif _elsewhere(trial, files):
            taken.elsewhere += 1
        elif copy(files, trial.digest, store, locks):
            taken.copied += 1
        else:
            taken.here += 1
    return taken


def copy(files: Mapping[str, bytes], digest: str, store: Store, locks: TrialLocks) -> bool:
    """Copies a trial, whole or not at all, unless one that is done is there.

    A failed trial is replaced by one that is done, a damaged one by any.

    Args:
        files: Its files by name, checked.
        digest: Its digest.
        store: The folder that gets it.
        locks: The locks of this process on that folder; the trial stays where it is if another
            process works on it.

    Returns:
        Whether it was copied.

    Raises:
        StudyError: The folder cannot be written to.
    """
    if not locks.take(digest):
        return False
    try:
        there = store.status(digest)
        if there == DONE or (there == FAILED and not _done(files)):
            return False
        if there:
            store.remove(digest)
        store.put(digest, files)
        return True
    finally:
        locks.release(digest)


def _done(files: Mapping[str, bytes]) -> bool:
    return bool(json.loads(files[RESULT])["status"] == DONE)


def _elsewhere(trial: TrialSpec, files: Mapping[str, bytes]) -> bool:
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
