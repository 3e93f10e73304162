"""Ready-made tasks: a YAML file each in this folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML

from sparseattn.errors import DataError, unknown

__all__ = ["names", "ready"]

#: Parts of a task of which single values may be changed; the others are replaced as a whole.
_MERGED = ("columns", "train", "evaluation")
#: A data set comes from one of these.
_SOURCES = {"hub", "files", "package"}


def names() -> list[str]:
    """The ready-made tasks."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def ready(name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A ready-made task, with changes.

    Args:
        name: Which one.
        changes: Keys of `sparseattn.tasks.spec.TaskSpec` and their values. Of columns and subsets
            only what is named changes; naming another source of the data replaces theirs.

    Returns:
        Plain values for `TaskSpec`.

    Raises:
        DataError: There is none of that name.

    >>> ready("rte", {"train": {"count": 100}})["train"]
    {'count': 100}
    """
    if name not in names():
        raise DataError(unknown("ready-made task", name, names()))
    text = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    task: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    for key, value in (changes or {}).items():
        old = task.get(key)
        if key == "data" and isinstance(value, Mapping) and not _SOURCES & set(value):
            task[key] = {**task[key], **value}
        elif key in _MERGED and isinstance(old, Mapping) and isinstance(value, Mapping):
            task[key] = {**old, **value}
        else:
            task[key] = value
    return task
