"""Reading the file of a packed study, which may come from anybody."""

from __future__ import annotations

import errno
import lzma
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sparseattn.errors import StudyError, reason
from sparseattn.study import record
from sparseattn.study.store import STUDY
from sparseattn.study.study import Study, values_of

__all__ = ["Packed", "read_packed"]

#: What a packed study may hold: its spec, and the files of its trials.
_NAMES = re.compile(rf"study\.json|trials/[0-9a-f]{{16}}/{record.NAME.pattern}")

#: The longest file inside one, and all of them together, in bytes.
_LONGEST, _LARGEST = 1 << 28, 1 << 31


@dataclass(frozen=True)
class Packed:
    """A packed study in memory.

    Attributes:
        study: The study.
        trials: The files of each of its trials by name, by digest; their checksums are not checked.
        where: What messages call it.
    """

    study: Study
    trials: Mapping[str, Mapping[str, bytes]]
    where: Path

    def finished(self) -> set[str]:
        """Digests of the trials that it holds."""
        return set(self.trials)

    def read(self, digest: str) -> dict[str, Any]:
        """What `result.json` of a trial says, once all of its files are checked.

        Raises:
            StudyError: One is damaged; the message names it.
        """
        where = f"{self.where}: trials/{digest}"
        return record.check_files(digest, partial(_held, self.trials[digest]), where)

    def files(self, digest: str) -> Mapping[str, bytes]:
        """The files of a trial by name, once they are checked.

        Raises:
            StudyError: See `read`.
        """
        return {name: self.trials[digest][name] for name in record.names(self.read(digest))}


def read_packed(place: Path) -> Packed:
    """Reads a file that `pack` wrote; nothing of it reaches the disk.

    Raises:
        StudyError: It is not a packed study, is damaged or cannot be read.
    """
    files = _read(place)
    if STUDY not in files:
        raise StudyError(f"{place} is not a packed study: it has no {STUDY}")
    study = Study.of(values_of(files[STUDY], f"{place}: {STUDY}"), f"{place}: {STUDY}")
    trials: dict[str, dict[str, bytes]] = {}
    for name, data in files.items():
        if name != STUDY:
            _, digest, inner = name.split("/")
            trials.setdefault(digest, {})[inner] = data
    return Packed(study, trials, place)


def _held(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return files[name]


def _read(place: Path) -> dict[str, bytes]:
    """The files inside, none of which reaches the disk before all are known to be ours."""
    files: dict[str, bytes] = {}
    whole = 0
    try:
        with tarfile.open(place, mode="r:xz") as archive:
            for member in archive:
                if not (member.isreg() and _NAMES.fullmatch(member.name)):
                    raise StudyError(f"{place} is not a packed study: it holds {member.name!r}")
                if member.size > _LONGEST or member.name in files:
                    raise StudyError(f"{place} is damaged: {member.name!r} is too long or doubled")
                whole += member.size
                if whole > _LARGEST:
                    raise StudyError(f"{place} holds more than {_LARGEST / 1e9:.1f} GB")
                inner = archive.extractfile(member)
                files[member.name] = inner.read() if inner else b""
    except (tarfile.TarError, lzma.LZMAError, EOFError):
        raise StudyError(f"{place} is not a packed study, or is cut short") from None
    except OSError as error:
        raise StudyError(f"cannot read {place}: {reason(error)}") from None
    return files
