"""Where files lie, and writing one so that readers see the old one or the new one."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparseattn.errors import DataError

#: Numbers of errors of a full disk, and what they are called.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SPACE = ("No space left on device", "Disk quota exceeded", "File too large")


def cache_folder() -> Path:
    """The folder for what is worth keeping between processes.

    Returns:
        `$SPARSEATTN_CACHE`, or `sparseattn` in the user's cache folder (`$XDG_CACHE_HOME`, else
        `~/.cache`); for a user without a home, a folder among the temporary files. It need not
        exist.
    """
    named = os.environ.get("SPARSEATTN_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparseattn"
    except RuntimeError:  # there is no home
        return Path(tempfile.gettempdir()) / f"sparseattn-{os.getuid()}"


def expanded(path: str) -> str:
    """A path with `~` and `$VARIABLES` filled in.

    Raises:
        DataError: A variable is not set.
    """
    filled = os.path.expandvars(os.path.expanduser(path))
    for name in re.findall(r"\$\{?(\w+)", filled):
        raise DataError(f"{path!r} needs the environment variable {name}")
    return filled


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes a file whole or not at all.

    Args:
        path: The file; its folder must exist.
        data: Its content; text is written as UTF-8.

    Raises:
        OSError: It cannot be written; a file that was there is as it was.
    """
    with writing_whole(path) as draft:
        draft.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """A draft beside a file, which takes its place if nothing goes wrong meanwhile.

    Args:
        path: The file; its folder must exist.

    Yields:
        The draft's path: an empty file with the same suffix and a name that nobody can guess.

    Raises:
        OSError: It cannot be written, and is named; a file that was there is as it was.
    """
    draft = None
    try:
        if path.exists() and not path.is_file():  # /dev/null would be a file from then on
            raise OSError(errno.EINVAL, "not a regular file")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
        draft = Path(name)
        yield draft
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o666 & ~mask)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file, others the draft
        raise
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def drafts(folder: Path, suffix: str) -> set[Path]:
    """What kills have left in a folder of files that were being written whole."""
    return set(folder.glob(f".*{suffix}"))


def sync_folder(path: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Raises an `OSError` that names the folder for what libraries raise where its disk is full."""
    try:
        yield
    except Exception as error:
        if out_of_space(error, folder):
            number = getattr(error, "errno", None) or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def out_of_space(error: BaseException, folder: Path) -> bool:
    """Whether something failed because the disk that holds `folder` is full.

    Libraries word it in their own ways (torch: `PytorchStreamWriter failed writing file`), so that
    the disk is asked too.
    """
    if getattr(error, "errno", None) in FULL or any(text in str(error) for text in _NO_SPACE):
        return True
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return isinstance(error, OSError | RuntimeError) and shutil.disk_usage(there).free < 1 << 16
