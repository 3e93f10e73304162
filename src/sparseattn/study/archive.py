"""A study in one small file: to send it, to keep it, to go on with it on another machine."""

from __future__ import annotations

import errno
import io
import lzma
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sparseattn.errors import StudyError, reason
from sparseattn.files import write_whole
from sparseattn.study import record
from sparseattn.study.store import STUDY, Store, writing
from sparseattn.study.study import Study

__all__ = ["Archive", "pack"]

#: What a packed study may hold: its spec, and the files of its trials.
_NAMES = re.compile(rf"study\.json|trials/[0-9a-f]{{16}}/{record.NAME.pattern}")

#: The longest file inside one, and all of them together, in bytes.
_LONGEST, _LARGEST = 1 << 28, 1 << 31


@dataclass(frozen=True)
class Archive:
    """A packed study in memory. It may come from anybody; none of it is written on reading.

    Attributes:
        study: The study.
        trials: The files of each of its trials by name, by digest; their checksums are not checked.
        path: Where it lies.
    """

    study: Study
    trials: Mapping[str, Mapping[str, bytes]]
    path: Path

    @classmethod
    def load(cls, path: Path) -> Archive:
        """Reads a file that `pack` wrote.

        Raises:
            StudyError: It is not a packed study, is damaged or cannot be read.
        """
        files = _read(path)
        if STUDY not in files:
            raise StudyError(f"{path} is not a packed study: it has no {STUDY}")
        study = Study.from_json(files.pop(STUDY), f"{path}: {STUDY}")
        trials: dict[str, dict[str, bytes]] = {}
        for name, data in files.items():
            _, digest, inner = name.split("/")
            trials.setdefault(digest, {})[inner] = data
        return cls(study, trials, path)

    def finished(self) -> set[str]:
        """Digests of the trials that it holds."""
        return set(self.trials)

    def files(self, digest: str) -> dict[str, bytes]:
        """The files of a trial by name, once they are checked.

        Raises:
            StudyError: One is damaged; the message names it.
        """
        where = f"{self.path}: trials/{digest}"
        return record.check(digest, partial(_file, self.trials[digest]), where)


def _file(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return files[name]


def _read(path: Path) -> dict[str, bytes]:
    """The files inside, once all are known to be ours."""
    files: dict[str, bytes] = {}
    total = 0
    try:
        with tarfile.open(path, mode="r:xz") as archive:
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
    with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.USTAR_FORMAT, preset=9) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    with writing(path.parent):
        write_whole(path, packed.getvalue())
    return len(digests)
