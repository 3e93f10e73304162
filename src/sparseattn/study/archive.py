"""A study in one small file: to send it, to keep it, to go on with it on another machine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from sparseattn.errors import StudyError
from sparseattn.study.checks import check_new
from sparseattn.study.create import begin
from sparseattn.study.import_trials import copy
from sparseattn.study.locks import TrialLocks
from sparseattn.study.packed import read_packed
from sparseattn.study.store import STUDY, Store, writing
from sparseattn.study.study import Study

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
    files = {STUDY: (store.folder / STUDY).read_bytes()}
    digests = sorted(store.finished())
    for digest in digests:
        files |= {f"trials/{digest}/{name}": d for name, d in store.files(digest).items()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=9) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
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
    packed = read_packed(place)
    trials = {digest: packed.files(digest) for digest in sorted(packed.trials)}
    if not (store.folder / STUDY).is_file():
        check_new(store.folder)
        begin(packed.study, store)
    elif not packed.finished() <= {t.digest for t in Study.load(store.folder).trials()[0]}:
        raise StudyError(
            f"{store.folder} holds another study, without some of these trials; to begin a study "
            f"with those that it shares: sparseattn study run SPEC --out DIR --reuse {place}"
        )
    with TrialLocks(store.folder) as locks:
        return sum(copy(files, digest, store, locks) for digest, files in trials.items())
