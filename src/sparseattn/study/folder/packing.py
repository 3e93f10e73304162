"""A study in one small file: to send it, to keep it, to go on with it on another machine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from sparseattn.errors import StudyError
from sparseattn.study.file.checks import check_new
from sparseattn.study.file.study import Study
from sparseattn.study.folder.packed import read_packed
from sparseattn.study.folder.store import STUDY, Store, writing
from sparseattn.study.runs.session import begin

__all__ = ["pack", "unpack"]


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
    store, packed = Store(folder), read_packed(Path(file))
    for digest in packed.trials:
        packed.read(digest)  # which checks it
    if not (store.folder / STUDY).is_file():
        check_new(store.folder)
        begin(packed.study, store)
    elif not packed.finished() <= _digests(Study.load(store.folder)):
        raise StudyError(
            f"{store.folder} holds another study, without some of these trials; give another --out"
        )
    added = [digest for digest in sorted(packed.trials) if not store.has(digest)]
    for digest in added:
        store.put(digest, packed.files(digest))
    return len(added)


def _digests(study: Study) -> set[str]:
    return {trial.digest for trial in study.trials()[0]}
