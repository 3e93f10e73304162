"""A study with nothing left open: what its folder's `study.json` says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sparseattn
from sparseattn.degrees.method import REVISION
from sparseattn.errors import StudyError
from sparseattn.models.names import PACKAGE, identity
from sparseattn.study.arms import learns
from sparseattn.study.grid import Arm
from sparseattn.study.reading import place, validated
from sparseattn.study.record import encode
from sparseattn.study.spec import StudySpec
from sparseattn.study.store import STUDY
from sparseattn.study.trial import MODEL, TrialSpec

__all__ = ["Study", "differing_versions", "first_difference", "installed"]

FORMAT = "sparseattn-study-1"

#: Packages of which another version may give another result.
_PACKAGES = ("tokenizers", "torch", "transformers")

#: What `versions` calls the revision of learned degrees. The digest of a trial with the
#: model of a package holds the model's name alone.
_DEGREES = "learned degrees"

#: Annotations that are the work of spaCy.
_SYNTAX = ("spacy",)
_PARSED = frozenset({"words", "sentences", "heads"})


@dataclass(frozen=True)
class Study:
    """A resolved study.

    Attributes:
        spec: What its file says.
        arms: Its arms, grids multiplied out and free numbers solved.
        fingerprint: Hash of the examples that it uses.
        versions: Versions of what decides its results: see `installed`.
    """

    spec: StudySpec
    arms: tuple[Arm, ...]
    fingerprint: str
    versions: Mapping[str, str]

    def trials(self) -> tuple[list[TrialSpec], list[str]]:
        """The trials, each once, and a notice for each arm that is another one's double."""
        found: dict[str, TrialSpec] = {}
        doubles: dict[str, None] = {}
        for arm in self.arms:
            syntax = bool(_PARSED.intersection(arm.needs))
            for seed in self.spec.seeds:
                trial = self._trial(arm, seed, syntax)
                first = found.setdefault(trial.digest, trial)
                if first is not trial:
                    told = f"{arm.name}@{arm.layers} is the same as {first.arm}@{first.layers}"
                    doubles[f"{told}; its trials are run once"] = None
        return list(found.values()), list(doubles)

    def _trial(self, arm: Arm, seed: int, syntax: bool) -> TrialSpec:
        others = {
            *((*_SYNTAX, self.spec.pipeline) if syntax else ()),
            *((_DEGREES,) if learns(arm.pattern) else ()),
            *(() if self.spec.model.startswith(PACKAGE) else (MODEL,)),
        }
        wanted = {"sparseattn", *_PACKAGES, *others}
        ours = {name: version for name, version in self.versions.items() if name in wanted}
        return TrialSpec(
            model=self.spec.model,
            task=self.spec.task,
            training=self.spec.training,
            arm=arm.name,
            pattern=arm.pattern,
            layers=arm.layers,
            seed=seed,
            pipeline=self.spec.pipeline,
            backend=self.spec.backend,
            data_fingerprint=self.fingerprint,
            versions=ours,
        )

    def to_json(self) -> bytes:
        """The text of `study.json`."""
        return encode(
            {
                "format": FORMAT,
                "spec": self.spec.declared,
                "executor": self.spec.executor.model_dump(mode="json"),
                "arms": [arm.to_json() for arm in self.arms],
                "fingerprint": self.fingerprint,
                "versions": dict(self.versions),
            }
        )

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Reads a study's folder.

        Raises:
            StudyError: The folder holds no study, or one that another version wrote.
        """
        return cls.of(read_values(folder), folder / STUDY)

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str | Path) -> Study:
        """Makes a study of what a `study.json` says.

        Args:
            values: Its values.
            where: What messages call it.

        Raises:
            StudyError: See `load`.
        """
        try:
            declared = {**values["spec"], "executor": values["executor"]}
            if isinstance(declared.get("contrasts"), list):  # before they had questions
                declared["contrasts"] = {"": declared["contrasts"]} if declared["contrasts"] else {}
            spec = validated(StudySpec, declared)
            found = [Arm(**{**arm, "needs": tuple(arm["needs"])}) for arm in values["arms"]]
            return cls(spec, tuple(found), values["fingerprint"], values["versions"])
        except (KeyError, TypeError, StudyError) as error:
            raise StudyError(f"{where} is damaged: {error}") from None


def read_values(folder: Path) -> dict[str, Any]:
    """What `study.json` says, as plain values.

    Raises:
        StudyError: See `Study.load`.
    """
    path = folder / STUDY
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{folder} is not a study's folder: {STUDY}: {error.strerror}") from None
    return values_of(data, path)


def values_of(data: bytes, where: str | Path) -> dict[str, Any]:
    """The same from the bytes of the file.

    Args:
        data: The bytes.
        where: What messages call it.

    Raises:
        StudyError: See `Study.load`.
    """
    try:
        values = json.loads(data)
    except ValueError:
        raise StudyError(f"{where} is damaged: it is not JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise StudyError(f"{where} is not the {FORMAT!r} of this version of sparseattn")
    return values


def installed(spec: StudySpec, arms: Sequence[Arm]) -> dict[str, str]:
    """The versions that decide results here, of packages, the model and learned degrees.

    Args:
        spec: The study's spec.
        arms: Its arms.

    Raises:
        DataError: The model's files cannot be read.
    """
    parsed = any(_PARSED.intersection(arm.needs) for arm in arms)
    names = [*_PACKAGES, *((*_SYNTAX, spec.pipeline) if parsed else ())]
    found = {"sparseattn": sparseattn.__version__}
    for name in names:
        try:
            # What follows a + says for which hardware it was built.
            found[name] = version(name.replace("_", "-")).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    if which := identity(spec.model):
        found[MODEL] = which
    if any(learns(arm.pattern) for arm in arms):
        found[_DEGREES] = REVISION
    return found


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
        for key in dict.fromkeys([*ours, *theirs]):
            found = first_difference(ours.get(key), theirs.get(key), (*where, key))
            if found:
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list):
        for index, pair in enumerate(zip(ours, theirs, strict=False)):
            if found := first_difference(*pair, (*where, index)):
                return found
        if len(ours) != len(theirs):
            return f"{place(where)} has {len(ours)} entries here and {len(theirs)} there"
        return None
    return None if ours == theirs else f"{place(where)} is {ours!r} here and {theirs!r} there"
