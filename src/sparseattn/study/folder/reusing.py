"""Trials that another study has run: taken over instead of run again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparseattn.errors import StudyError
from sparseattn.study.file.study import Study, first_difference
from sparseattn.study.folder.claims import Claims
from sparseattn.study.folder.packed import read_packed
from sparseattn.study.folder.record import DONE
from sparseattn.study.folder.store import Store
from sparseattn.study.trials.trial import TrialSpec

__all__ = ["Source", "Taken", "take"]


class Trials(Protocol):
    """Finished trials, in a folder or in a packed study."""

    def finished(self) -> set[str]:
        """Their digests."""
        ...

    def read(self, digest: str) -> Mapping[str, Any]:
        """What `result.json` of one says; a `StudyError` if a file of it is damaged."""
        ...

    def files(self, digest: str) -> Mapping[str, bytes]:
        """The files of one by name."""
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
class Taken:
    """What came of taking trials over.

    Attributes:
        digests: The trials that were copied.
        damaged: What is wrong with those that are damaged there.
        difference: Why the studies have no trial in common, where what they declare says it.
    """

    digests: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    difference: str | None = None


def take(
    source: Source, study: Study, trials: Iterable[TrialSpec], store: Store, claims: Claims
) -> Taken:
    """Copies trials of another study that came to their end there and are lacking here.

    A trial is copied whole or not at all, and none is replaced.

    Args:
        source: The other study.
        study: The study that gets them.
        trials: Its trials.
        store: Its folder.
        claims: The claims of this process on that folder.

    Raises:
        StudyError: The folder cannot be written to.
    """
    taken, there = Taken(), source.trials.finished()
    common = [trial.digest for trial in trials if trial.digest in there]
    if not common:
        taken.difference = first_difference(_decisive(study), _decisive(source.study))
    for digest in common:
        if store.has(digest) or not claims.take(digest):
            continue
        try:
            result = source.trials.read(digest)
        except StudyError as error:
            taken.damaged.append(str(error))
        else:
            if result["status"] == DONE:
                store.put(digest, source.trials.files(digest))
                taken.digests.append(digest)
        claims.release(digest)
    return taken


def _decisive(study: Study) -> dict[str, Any]:
    """What two studies must share before any trial of theirs can be the same."""
    spec = study.spec.declared
    task = {name: value for name, value in spec["task"].items() if name != "data"}
    others = {name: spec[name] for name in ("model", "training", "pipeline", "backend")}
    versions, data = dict(study.versions), study.fingerprint
    return {**others, "task": task, "versions": versions, "fingerprint of the data": data}
