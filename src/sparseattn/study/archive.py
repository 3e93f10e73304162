"""Trials of other studies: a study packed into one file, unpacked, or imported into another one."""

from __future__ import annotations

import io
import json
import lzma
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError, reason
from sparseattn.files import write_whole
from sparseattn.study import record
from sparseattn.study.locks import TrialLocks
from sparseattn.study.preflight import check_new
from sparseattn.study.record import DONE, FAILED, RESULT
from sparseattn.study.store import STUDY, Store, writing
from sparseattn.study.study import Study, create, first_difference
from sparseattn.study.trial import MODEL, TrialSpec

#: What a packed study may hold: its spec, and the files of its trials.
_NAMES = re.compile(rf"study\.json|trials/[0-9a-f]{{16}}/{record.NAME.pattern}")

#: The longest file inside one, and all of them together, in bytes.
_LONGEST, _LARGEST = 1 << 28, 1 << 31


@dataclass(frozen=True)
class Source:
    """A study in a folder or packed. It may come from anybody; reading it writes nothing.

    Attributes:
        path: Its folder or file.
        study: The study.
        digests: The trials that are finished.
        files: The files of one by name; a `StudyError` if one is damaged.
    """

    path: Path
    study: Study
    digests: set[str]
    files: Callable[[str], dict[str, bytes]]

    @classmethod
    def at(cls, path: str | Path) -> Source:
        """Opens a folder or a packed study; a `StudyError` if it is neither."""
        path = Path(path)
        if path.is_file():
            return cls.packed(path)
        store = Store(path)
        return cls(path, Study.load(path), store.finished(), store.files)

    @classmethod
    def packed(cls, path: Path) -> Source:
        """Opens what `pack` wrote; a `StudyError` if it is not that, is damaged or unreadable."""
        contents = _read(path)
        if STUDY not in contents:
            raise StudyError(f"{path} is not a packed study: it has no {STUDY}")
        study = Study.from_json(contents.pop(STUDY), f"{path}: {STUDY}")

        def files(digest: str) -> dict[str, bytes]:
            folder = f"trials/{digest}"
            where = f"{path}: {folder}"
            return record.check(digest, lambda name: contents[f"{folder}/{name}"], where)

        return cls(path, study, {name.split("/")[1] for name in contents}, files)


def _read(path: Path) -> dict[str, bytes]:
    """The files inside, once all are known to be ours."""
    files: dict[str, bytes] = {}
    total = 0
    try:
        with lzma.open(path) as unpacked, _opened(unpacked) as archive:
            for member in archive:
                if not (member.isreg() and _NAMES.fullmatch(member.name)):
                    raise StudyError(f"{path} is not a packed study: it holds {member.name!r}")
                if member.size > _LONGEST or member.name in files:
                    raise StudyError(f"{path} is damaged: {member.name!r} is too long or doubled")
                total += member.size
                if total > _LARGEST:
                    raise StudyError(f"{path} holds more than {_LARGEST / 1e9:.1f} GB")
                inner = archive.extractfile(member)
                files[member.name] = inner.read() if inner else b""
    except (tarfile.TarError, lzma.LZMAError, EOFError):
        raise StudyError(f"{path} is not a packed study, or is cut short") from None
    except OSError as error:
        raise StudyError(f"cannot read {path}: {reason(error)}") from None
    return files


def _opened(unpacked: lzma.LZMAFile) -> tarfile.TarFile:
    """An archive, of which no part is read at once that is longer than a file may be."""

    class Limited(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            if size is not None and size > _LONGEST:
                raise tarfile.ReadError("a header is too long")
            return super().read(size)

    return tarfile.open(fileobj=Limited(unpacked), mode="r:")


def pack(folder: str | Path, file: str | Path) -> int:
    """Writes the finished trials of a study into one `.tar.xz` file.

    The same trials give the same bytes. Checkpoints and derived tables are left out.

    Args:
        folder: The study's folder.
        file: The file; it is replaced in one step.

    Returns:
        How many trials it holds.

    Raises:
        StudyError: It is not a study's folder, a trial is damaged, or the file cannot be written.
    """
    store, path = Store(folder), Path(file)
    Study.load(store.folder)
    files = {STUDY: (store.folder / STUDY).read_bytes()}
    digests = sorted(store.finished())
    for digest in digests:
        for name, data in sorted(store.files(digest).items()):
            files[f"trials/{digest}/{name}"] = data
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=9) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with writing(path.parent):
        write_whole(path, packed.getvalue())
    return len(digests)


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
    source, store = Source.packed(Path(file)), Store(folder)
    trials = {digest: source.files(digest) for digest in sorted(source.digests)}
    if not (store.folder / STUDY).is_file():
        check_new(store.folder)
        create(source.study, store)
    elif not source.digests <= {t.digest for t in Study.load(store.folder).trials()[0]}:
        raise StudyError(
            f"{store.folder} holds another study, without some of these trials; to begin a study "
            f"with those that it shares: sparseattn study run SPEC --out DIR --import {file}"
        )
    with TrialLocks(store.folder) as locks:
        return sum(_copy(files, digest, store, locks) for digest, files in trials.items())


def import_trials(
    source: Source, study: Study, trials: Iterable[TrialSpec], store: Store, locks: TrialLocks
) -> tuple[str, list[str]]:
    """Copies trials of another study that came to their end there and did not here.

    Returns:
        How many were copied, and how many not and why; what is wrong with those that are damaged.
    """
    reasons = ("here already", "failed there", "run with other packages there", "damaged there")
    copied, left, damaged = 0, dict.fromkeys(reasons, 0), []
    common = [trial for trial in trials if trial.digest in source.digests]
    for trial in common:
        try:
            files = source.files(trial.digest)
        except StudyError as error:
            damaged.append(str(error))
            left["damaged there"] += 1
            continue
        if not _done(files):
            left["failed there"] += 1
        elif _ran_elsewhere(trial, files):
            left["run with other packages there"] += 1
        elif _copy(files, trial.digest, store, locks):
            copied += 1
        else:
            left["here already"] += 1
    words = [str(copied), *(f"{count} {why}" for why, count in left.items() if count)]
    if not common:
        difference = first_difference(_decisive(study), _decisive(source.study))
        words.append(difference or "its arms and seeds are others")
    return "; ".join(words), damaged


def _copy(files: Mapping[str, bytes], digest: str, store: Store, locks: TrialLocks) -> bool:
    """Copies a trial, unless it is there or another process works on it; whether it was copied.

    One that is done replaces a failed one, and any a damaged one.
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
    others = {name: spec[name] for name in ("training", "pipeline", "backend")}
    versions, data = dict(study.versions), study.fingerprint
    model = versions.pop(MODEL, spec["model"])
    shared = {"model": model, **others, "task": task, "versions": versions}
    return {**shared, "fingerprint of the data": data}
