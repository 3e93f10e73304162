"""A study with nothing left open: what its folder's `study.json` says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

import sparseattn
from sparseattn.annotations import PARSED
from sparseattn.degrees.method import REVISION
from sparseattn.errors import SparseAttnError, StudyError
from sparseattn.models.identity import identity
from sparseattn.study.arms import learns
from sparseattn.study.grid import Arm
from sparseattn.study.locks import TrialLocks
from sparseattn.study.reading import place, validated
from sparseattn.study.record import encode
from sparseattn.study.spec import StudySpec
from sparseattn.study.store import STUDY, Store
from sparseattn.study.trial import ALWAYS, MODEL, TrialSpec
from sparseattn.training.environment import version_of

FORMAT = "sparseattn-study-1"

#: What `versions` calls the revision of learned degrees.
_DEGREES = "learned degrees"


class _File(BaseModel):
    """What `study.json` holds."""

    spec: dict[str, Any]
    executor: dict[str, Any]
    arms: tuple[Arm, ...]
    fingerprint: str
    versions: dict[str, str]
    added: dict[str, tuple[tuple[str, str], ...]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A resolved study.

    Attributes:
        spec: What its file says.
        arms: Its arms, grids multiplied out and free numbers solved.
        fingerprint: Hash of the examples that it uses.
        versions: Versions of what decides its results: see `installed`.
        added: Those of its contrasts that were added when a trial had been run: see `create`.
    """

    spec: StudySpec
    arms: tuple[Arm, ...]
    fingerprint: str
    versions: Mapping[str, str]
    added: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    def trials(self) -> tuple[list[TrialSpec], list[str]]:
        """The trials, seed by seed, and a notice for each arm that is another one's double."""
        trials: dict[str, TrialSpec] = {}
        notices: dict[str, None] = {}
        for arm in self.arms:
            versions = self._versions(arm)
            for seed in self.spec.seeds:
                trial = TrialSpec(
                    model=self.spec.model,
                    task=self.spec.task,
                    training=self.spec.training,
                    arm=arm.name,
                    pattern=arm.pattern,
                    layers=arm.layers,
                    start=arm.start,
                    seed=seed,
                    pipeline=self.spec.pipeline,
                    backend=self.spec.backend,
                    data_fingerprint=self.fingerprint,
                    versions=versions,
                )
                first = trials.setdefault(trial.digest, trial)
                if first is not trial:
                    same = f"{arm.name}@{arm.layers} is the same as {first.arm}@{first.layers}"
                    notices[f"{same}; its trials are run once"] = None
        # Seed by seed, so that a study that is stopped has seeds of every arm.
        return sorted(trials.values(), key=lambda trial: trial.seed), list(notices)

    def _versions(self, arm: Arm) -> dict[str, str]:
        """The versions that decide the results of an arm."""
        names = {*ALWAYS}
        if PARSED.intersection(arm.needs):
            names |= {"spacy", self.spec.pipeline}
        if learns(arm.pattern):
            names.add(_DEGREES)
        return {name: version for name, version in self.versions.items() if name in names}

    def to_json(self) -> bytes:
        """The text of `study.json`."""
        return encode(
            {
                "format": FORMAT,
                "spec": self.spec.declared,
                "executor": self.spec.executor.model_dump(mode="json"),
                "arms": [asdict(arm) for arm in self.arms],
                "fingerprint": self.fingerprint,
                "versions": dict(self.versions),
                **({"added": dict(self.added)} if self.added else {}),
            }
        )

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Reads a folder; a `StudyError` if it holds no study, or one of another version."""
        path = folder / STUDY
        try:
            return cls.from_json(path.read_bytes(), path)
        except FileNotFoundError:
            why = f"it has no {STUDY}" if folder.is_dir() else "there is no such folder"
        except NotADirectoryError:
            why = "it is not a folder"
        except OSError as error:
            why = f"{STUDY}: {error.strerror}"
        raise StudyError(f"{folder} is not a study's folder: {why}")

    @classmethod
    def from_json(cls, data: bytes, where: str | Path) -> Study:
        """Makes a study of the text of `study.json`, which messages call `where`."""
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            raise StudyError(f"{where} is damaged: it is not JSON") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StudyError(f"{where} is not the {FORMAT!r} of this version of sparseattn")
        try:
            file = validated(_File, values)
            spec = validated(StudySpec, {**file.spec, "executor": file.executor})
        except SparseAttnError as error:
            raise StudyError(f"{where} is damaged: {error}") from None
        added = {text: list(pairs) for text, pairs in file.added.items()}
        return cls(spec, file.arms, file.fingerprint, file.versions, added)


def create(study: Study, store: Store) -> None:
    """Writes a study's file, once for all processes; a `StudyError` if another study is there.

    Contrasts that come to a study of which a trial has ended are marked as added.
    """
    store.prepare()
    with TrialLocks(store.folder) as locks, locks.study():
        if (store.folder / STUDY).is_file():
            there = Study.load(store.folder)
            if {t.digest for t in there.trials()[0]} != {t.digest for t in study.trials()[0]}:
                raise StudyError(f"{store.folder} holds another study; give another --out")
            study = replace(study, added=_added(study, there, bool(store.finished())))
        store.write(STUDY, study.to_json())


def _added(now: Study, before: Study, begun: bool) -> dict[str, list[tuple[str, str]]]:
    """The contrasts that were not declared before the first trial, by question."""
    found = {}
    for text, pairs in now.spec.contrasts.items():
        known = set(before.spec.contrasts.get(text, ())) if begun else set(pairs)
        late = set(before.added.get(text, ()))
        if kept := [pair for pair in pairs if pair not in known or pair in late]:
            found[text] = kept
    return found


def installed(spec: StudySpec, arms: Sequence[Arm]) -> dict[str, str]:
    """The versions that decide results here, of packages, the model and learned degrees."""
    parsed = any(PARSED.intersection(arm.needs) for arm in arms)
    versions = {"sparseattn": sparseattn.__version__}
    packages = [name for name in ALWAYS if name not in ("sparseattn", MODEL)]
    for name in (*packages, *(("spacy", spec.pipeline) if parsed else ())):
        # What follows a + says for which hardware it was built.
        found = version_of(name.replace("_", "-")) or "none"
        versions[name] = found.partition("+")[0]
    if which := identity(spec.model):
        versions[MODEL] = which
    if any(learns(arm.pattern) for arm in arms):
        versions[_DEGREES] = REVISION
    return versions


def differing_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Lines such as `torch 2.12.0 then, 2.13.0 now`."""
    return [
        f"{name} {before[name]} then, {now.get(name, 'none')} now"
        for name in before
        if before[name] != now.get(name, "none")
    ]


def first_difference(ours: Any, theirs: Any, where: tuple[Any, ...] = ()) -> str | None:
    """Says where two specs first differ, and how; None if they do not.

    >>> first_difference({"seeds": [0, 1]}, {"seeds": [0, 2]})
    'seeds[1] is 1 here and 2 there'
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(key, ours.get(key), theirs.get(key)) for key in dict.fromkeys([*ours, *theirs])]
    elif isinstance(ours, list) and isinstance(theirs, list):
        pairs = [(at, *pair) for at, pair in enumerate(zip(ours, theirs, strict=False))]
    elif ours == theirs:
        return None
    else:
        return f"{place(where)} is {ours!r} here and {theirs!r} there"
    for key, one, other in pairs:
        if difference := first_difference(one, other, (*where, key)):
            return difference
    if isinstance(ours, list) and len(ours) != len(theirs):
        return f"{place(where)} has {len(ours)} entries here and {len(theirs)} there"
    return None
