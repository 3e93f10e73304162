"""What the explorer was pointed at: studies, models and files of texts. Light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from sparseattn.errors import DataError, StudyError
from sparseattn.models.names import DEFAULT, PACKAGE, no_model_in

#: What a study's folder holds, and what a packed one ends with.
_STUDY, _PACKED = "study.json", (".tar.xz", ".tar", ".tgz", ".zip")


@dataclass(frozen=True)
class Sources:
    """What may be read, and nothing else is.

    Attributes:
        studies: Folders of studies, by what they are called on the page.
        models: Models as they were named; the first is what the page begins with.
        texts: Texts, or pairs, of each file, by what it is called on the page.
    """

    studies: Mapping[str, Path] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    texts: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, names: Sequence[str], texts: Mapping[str, Sequence[tuple[str, ...]]] | None = None
    ) -> Sources:
        """Tells studies from models.

        Args:
            names: Folders of studies; folders, `package:NAME` or Hub names of models. Without a
                model the packaged one stands, if it is installed.
            texts: See the class.

        Raises:
            StudyError: A packed study.
            DataError: A folder that is neither, or a model that is not there.
        """
        studies: dict[str, Path] = {}
        models: list[str] = []
        for name in names:
            if (Path(name) / _STUDY).is_file():
                studies[_unused(Path(name).resolve().name, studies)] = Path(name)
            else:
                _check_model(name)
                models.append(name)
        if not models and find_spec(DEFAULT.removeprefix(PACKAGE)):
            models = [DEFAULT]
        return cls(studies, tuple(dict.fromkeys(models)), texts or {})


def _check_model(name: str) -> None:
    path = Path(name)
    if path.is_file() and name.endswith(_PACKED):
        raise StudyError(
            f"{name} is packed: `sparseattn study unpack {name} --out FOLDER`, then name the folder"
        )
    if path.exists() and not (path / "config.json").is_file():
        instead = no_model_in(path)
        raise DataError(
            f"{name} is neither a study's folder (it has no {_STUDY}) nor a model's "
            f"(no config.json){instead and f'; {instead}'}"
        )
    from sparseattn.models.load import load_part

    load_part(name, "AutoConfig")


def _unused(name: str, taken: Mapping[str, object]) -> str:
    """The name, with a number where it is taken."""
    tries = (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3)))
    return next(each for each in tries if each not in taken)
