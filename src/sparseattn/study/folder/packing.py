"""A study in one small file: to send it, to keep it, to go on with it on another machine."""

from __future__ import annotations

import errno
import io
import lzma
import os
import re
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from sparseattn.errors import StudyError
from sparseattn.study.file.checks import check_new
from sparseattn.study.file.study import Study, values_of
from sparseattn.study.folder import record
from sparseattn.study.folder.store import STUDY, Store, writing
from sparseattn.study.runs.session import begin

__all__ = ["pack", "unpack"]

#: What a packed study may hold: its spec, and the files of its trials.
_NAMES = re.compile(r"study\.json|trials/[0-9a-f]{16}/[a-z]+\.(json|jsonl|parquet)")

#: The longest file inside one, in bytes.
_LONGEST = 1 << 28


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
    store, place = Store(folder), Path(file)
    Study.load(store.folder)
    paths = [store.folder / STUDY]
    digests = sorted(store.finished())
    for digest in digests:
        store.read(digest)  # which checks it
        paths += sorted((store.trials / digest).iterdir())
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=9) as archive:
        for path in paths:
            data = path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(store.folder).as_posix())
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with writing(place.parent):
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            temporary.write_bytes(made.getvalue())
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
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
    place, store = Path(file), Store(folder)
    files = _read(place)
    if STUDY not in files:
        raise StudyError(f"{place} is not a packed study: it has no {STUDY}")
    study = Study.of(values_of(files[STUDY], f"{place}: {STUDY}"), f"{place}: {STUDY}")
    trials = _trials(files)
    for digest, held in trials.items():
        record.check_files(digest, partial(_held, held), f"{place}: trials/{digest}")
    if not (store.folder / STUDY).is_file():
        check_new(store.folder)
        begin(study, store)
    elif not trials.keys() <= _digests(Study.load(store.folder)):
        raise StudyError(
            f"{store.folder} holds another study, without some of these trials; give another --out"
        )
    added = [digest for digest in sorted(trials) if not store.has(digest)]
    for digest in added:
        store.put(digest, trials[digest])
    return len(added)


def _trials(files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    made: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        if name != STUDY:
            _, digest, inner = name.split("/")
            made.setdefault(digest, {})[inner] = data
    return made


def _digests(study: Study) -> set[str]:
    return {trial.digest for trial in study.trials()[0]}


def _held(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return files[name]


def _read(place: Path) -> dict[str, bytes]:
    """The files inside, none of which reaches the disk before all are known to be ours."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(place, mode="r:xz") as archive:
            for member in archive:
                if not (member.isreg() and _NAMES.fullmatch(member.name)):
                    raise StudyError(f"{place} is not a packed study: it holds {member.name!r}")
                if member.size > _LONGEST or member.name in files:
                    raise StudyError(f"{place} is damaged: {member.name!r} is too long or doubled")
                inner = archive.extractfile(member)
                files[member.name] = inner.read() if inner else b""
    except (tarfile.TarError, lzma.LZMAError, EOFError):
        raise StudyError(f"{place} is not a packed study, or is cut short") from None
    except OSError as error:
        raise StudyError(f"cannot read {place}: {error.strerror or error}") from None
    return files
