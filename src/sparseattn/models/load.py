"""Loading models and their parts by name, without running code that comes with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from sparseattn.errors import DataError, MissingExtraError, PlanError, SparseAttnError
from sparseattn.models.config import FIELD, QUANTIZED, SparsityConfig
from sparseattn.models.encoder import encoder_of
from sparseattn.models.int8 import quantize
from sparseattn.models.names import not_found, resolve, spelled
from sparseattn.models.sparsify import attach, plan_of, restore

#: What says which files are meant, of the arguments of `from_pretrained`.
_PLACE = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
#: What makes `from_pretrained` read weights in single precision.
_SINGLE = {"dtype": torch.float32}
#: More layers than any encoder has; anybody may have written a config.
_MOST_LAYERS = 1024


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars, and its notes about unused weights and new heads."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load(path: str | Path, model_class: Any = None, **kwargs: Any) -> Any:
    """Loads a model with the plan that its config.json carries.

    Args:
        path: A folder or Hub name that `model.save_pretrained`, or `save` of a
            `SentenceTransformer` or `CrossEncoder`, wrote to while sparsified.
        model_class: The class to load; by default the one that was saved.
        **kwargs: Passed on to `from_pretrained`, or to the class of sentence-transformers.

    Returns:
        The model, sparsified, in evaluation mode.

    Raises:
        PlanError: There is no config, or it carries no plan, transformers lacks the class, or there
            are no weights as safetensors.
        DataError: It is no name, or code that lies beside the model would have to be run.
        MissingExtraError: It is one of sentence-transformers, which is not installed.
    """
    if kwargs.pop("trust_remote_code", False):
        raise DataError(f"code that comes with a model is never run: {path}, trust_remote_code")
    name = spelled(path)
    # A Hub name is `name` or `owner/name`.
    local = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if local and not Path(path).exists():
        raise PlanError(f"no model at {path}: there is no such folder")
    try:
        model = _load(path, model_class, kwargs)
    except SparseAttnError:
        raise
    except Exception as error:  # whatever a damaged config.json makes of transformers
        raise PlanError(f"no model at {path}: {_why(path, error)}") from error
    if plan_of(model) is None:
        raise PlanError(
            f"the model at {path} carries no plan; load it with "
            f"{type(model).__name__}.from_pretrained() and call sparsify()"
        )
    return model


def _load(path: str | Path, model_class: Any, kwargs: dict[str, Any]) -> Any:
    """A saved model as it is: with the plan that it carries, or dense."""
    place = {name: kwargs[name] for name in _PLACE if name in kwargs}
    if model_class is None and _is_sentence_transformer(path, **place):
        return _sentence_transformer(path, **kwargs)
    config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False, **place)
    if getattr(config, "num_hidden_layers", 0) > _MOST_LAYERS:  # it would take hours to make them
        raise PlanError(f"the config of {path} asks for {config.num_hidden_layers:,} layers")
    data = getattr(config, FIELD, None)
    if data is not None:
        delattr(config, FIELD)
        config._attn_implementation = None
    name = (config.architectures or ["AutoModel"])[0]
    model_class = model_class or getattr(transformers, name, None)
    if model_class is None:
        raise PlanError(
            f"transformers has no class {name!r}; pass the class: sparseattn.load(path, {name})"
        )
    # Weights as pickles are never read: unpickling can run code.
    kwargs = {"use_safetensors": True, **kwargs, "trust_remote_code": False}
    read = partial(model_class.from_pretrained, path, config=config)
    model = read(**kwargs)
    if data is None:
        return model
    return _attached(model, data, lambda: read(**{**kwargs, **_SINGLE}))


def _attached(model: Any, data: Any, in_single: Callable[[], Any]) -> Any:
    """A model as its config's entry says.

    Args:
        model: As it was read.
        data: The entry.
        in_single: Reads it in single precision.
    """
    kind, dtype = data.get(QUANTIZED) if isinstance(data, dict) else None, encoder_of(model).dtype
    if kind not in (None, "int8"):
        raise PlanError(
            f"the config's {FIELD!r} entry asks for linear layers in {kind!r}, not int8"
        )
    if kind and dtype != torch.float32:
        model = in_single()  # rounded weights would give other integers
    attach(model, SparsityConfig.from_json(data))
    return model if kind is None else quantize(model.eval()).to(dtype)


def load_model(name: str) -> Any:
    """A saved model, or `SentenceTransformer`, on the CPU: with the plan that it carries, or dense.

    Raises:
        DataError: It cannot be loaded.
        MissingExtraError: It is one of sentence-transformers, which is not installed.
    """
    place = resolve(name)
    with quiet(), _loading(name):
        return _load(place, None, {"device": "cpu"} if _is_sentence_transformer(place) else {})


def load_part(name: str, kind: str, **options: Any) -> Any:
    """Loads a part of a model, weights from safetensors only.

    Args:
        name: See `sparseattn.resolve`.
        kind: `AutoTokenizer`, `AutoConfig`, or the class of a model.
        **options: Passed on to `from_pretrained`.

    Raises:
        DataError: It cannot be loaded.
    """
    place = resolve(name)
    if kind not in ("AutoTokenizer", "AutoConfig"):
        options["use_safetensors"] = True
    with quiet(), _loading(name):
        auto = getattr(transformers, kind)
        return auto.from_pretrained(place, trust_remote_code=False, **options)


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turns a failure to load into one line."""
    try:
        yield
    except SparseAttnError:
        raise
    except Exception as error:
        raise DataError(
            f"model {name!r} cannot be loaded; give a local folder, a Hub name or package:NAME "
            f"({_why(name, error)})"
        ) from error


def _why(name: str | Path, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code that lies beside it, and such code is never run"
    return not_found(name, error)


def _is_sentence_transformer(path: str | Path, **place: Any) -> bool:
    return _saved_file(path, "modules.json", **place) is not None


def _saved_file(path: str | Path, name: str, **place: Any) -> str | None:
    """Where a file of a saved model lies; None if the model has none of that name."""
    file: str | None = cached_file(
        str(path),
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **place,
    )
    return file


def _class_of_sentences(path: str | Path, **place: Any) -> str:
    """Which class of sentence-transformers was saved; any other would load it without its head."""
    file = _saved_file(path, "config_sentence_transformers.json", **place)
    said = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    kind = said.get("model_type") if isinstance(said, dict) else None
    return kind if kind in ("CrossEncoder", "SparseEncoder") else "SentenceTransformer"


def _sentence_transformer(path: str | Path, **kwargs: Any) -> Any:
    """A model of sentence-transformers, with the plan that it carries."""
    try:
        import sentence_transformers
    except ImportError:
        raise MissingExtraError(
            f"the model {path} is one of sentence-transformers, which is not installed: "
            "pip install sentence-transformers"
        ) from None
    # Not the implementation that config.json asks for: it cannot apply every plan by itself.
    first = {"attn_implementation": None, "use_safetensors": True}
    kwargs["model_kwargs"] = {**first, **kwargs.get("model_kwargs", {})}

    place = {name: kwargs[name] for name in _PLACE if name in kwargs}
    made = getattr(sentence_transformers, _class_of_sentences(path, **place))

    def read(**more: Any) -> Any:
        return made(str(path), **{**kwargs, "model_kwargs": {**kwargs["model_kwargs"], **more}})

    model = read()
    data = getattr(encoder_of(model).config, FIELD, None)
    if data is None:
        return model
    return _attached(restore(model), data, lambda: restore(read(**_SINGLE)))
