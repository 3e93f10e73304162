"""Loading a sparsified model that `save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparseattn.errors import PlanError
from sparseattn.models.config import FIELD, SparsityConfig
from sparseattn.models.sparsify import attach_record

__all__ = ["load"]


def load(path: str | Path, model_class: Any = None, **kwargs: Any) -> Any:
    """Loads a model with the plan that its config.json carries.

    Args:
        path: A folder or Hub name that `model.save_pretrained` wrote to while sparsified.
        model_class: The class to load; by default the one that was saved.
        **kwargs: Passed on to `from_pretrained`.

    Returns:
        The model, sparsified, in evaluation mode.

    Raises:
        PlanError: There is no config, or it carries no plan, transformers lacks the class, or there
            are no weights as safetensors.
    """
    import transformers

    if _folder(path) and not Path(path).exists():
        raise PlanError(f"no model at {path}: there is no such folder")
    try:
        config = transformers.AutoConfig.from_pretrained(path, **_where(kwargs))
    except (OSError, ValueError) as error:
        raise PlanError(f"no model at {path}: {str(error).splitlines()[0]}") from None
    data = getattr(config, FIELD, None)
    if data is None:
        raise PlanError(
            f"the model at {path} carries no plan; load it with from_pretrained() and call "
            "sparsify()"
        )
    record = SparsityConfig.from_json(data)
    delattr(config, FIELD)
    config._attn_implementation = None
    if model_class is None:
        name = (config.architectures or ["AutoModel"])[0]
        model_class = getattr(transformers, name, None)
        if model_class is None:
            raise PlanError(f"transformers has no class {name!r}; pass the class as model_class=")
    # Weights as pickles are never read: unpickling can run code.
    kwargs.setdefault("use_safetensors", True)
    try:
        model = model_class.from_pretrained(path, config=config, **kwargs)
    except OSError as error:
        raise PlanError(f"no weights at {path}: {str(error).splitlines()[0]}") from None
    return attach_record(model, record)


def _where(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments of `from_pretrained` that say which files are meant."""
    names = ("cache_dir", "local_files_only", "revision", "subfolder", "token", "trust_remote_code")
    return {name: kwargs[name] for name in names if name in kwargs}


def _folder(path: str | Path) -> bool:
    """Whether this can only be a folder: a Hub name is `name` or `owner/name`."""
    text = str(path)
    return Path(path).is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
