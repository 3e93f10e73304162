"""Loading a saved model to lengthen, and reading back what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparseattn.errors import DataError, MissingExtraError, PlanNotAppliedError, SparseAttnError
from sparseattn.models.config import FIELD
from sparseattn.models.encoder import encoder_of
from sparseattn.models.lengthen.growth import tensors
from sparseattn.models.lengthen.lengthening import Lengthened, owner_of
from sparseattn.models.lengthen.runs import PADDED, outputs
from sparseattn.models.load import load

__all__ = ["loaded", "read_back"]


def loaded(name: str, where: str | Path) -> tuple[Any, Any]:
    """The model of a folder or Hub name and its tokenizer, or None in place of the latter.

    Args:
        name: What the user called it.
        where: What `from_pretrained` takes.

    Returns:
        A `SentenceTransformer` where it is one; otherwise the class that was saved.

    Raises:
        DataError: It cannot be loaded.
        MissingExtraError: It is one of sentence-transformers, which is not installed.
    """
    try:
        if _is_sentence_transformer(where):
            model = _sentence_transformer(name)(str(where), device="cpu")
            return model, model.tokenizer
        return _transformer(where), _tokenizer(where)
    except SparseAttnError:
        raise
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"model {name!r} cannot be loaded; give a local folder, a Hub name or package:NAME "
            f"({why})"
        ) from error


def read_back(done: Lengthened, folder: Path) -> str | None:
    """Loads what was written and compares tensors and outputs with the model at hand.

    Args:
        done: The model at hand.
        folder: Where it was written.

    Returns:
        Why `SentenceTransformer` cannot load the folder by itself, or None.

    Raises:
        DataError: What was read is not what was written.
    """
    owner = owner_of(done.model)
    kind = type(owner)
    again = load(folder, kind) if done.plan else kind.from_pretrained(folder)
    _compare(owner, again, folder)
    if owner is done.model:
        return None
    try:
        whole = type(done.model)(str(folder), device="cpu")
        _compare(owner, owner_of(whole), folder)
    except (PlanNotAppliedError, ValueError) as error:
        return str(error).splitlines()[0]
    if whole.max_seq_length != done.after:
        raise DataError(f"read back, {folder} takes {whole.max_seq_length} tokens")
    return None


def _compare(model: Any, again: Any, folder: Path) -> None:
    mine, other = tensors(model), tensors(again)
    for name, tensor in mine.items():
        if name not in other or not torch.equal(tensor.cpu(), other[name].cpu()):
            raise DataError(f"read back from {folder}, {name} is not what was written")
    first, second = encoder_of(model), encoder_of(again)
    if not torch.equal(outputs(first, PADDED), outputs(second, PADDED)):
        raise DataError(f"read back from {folder}, the model has other outputs")


def _transformer(where: str | Path) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(where)
    kind = (config.architectures or ["AutoModel"])[0]
    model_class = getattr(transformers, kind, None)
    if model_class is None:
        raise DataError(f"transformers has no class {kind!r}, which the config of {where} names")
    if getattr(config, FIELD, None) is not None:
        return load(where, model_class)
    return model_class.from_pretrained(where, use_safetensors=True)


def _is_sentence_transformer(where: str | Path) -> bool:
    from transformers.utils.hub import cached_file

    found = cached_file(
        where,
        "modules.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def _sentence_transformer(name: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingExtraError(
            f"model {name!r} is one of sentence-transformers, which is not installed: "
            "pip install sentence-transformers"
        ) from None
    return SentenceTransformer


def _tokenizer(where: str | Path) -> Any:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, KeyError):
        return None
    # Where there are no files, transformers makes one up that knows special tokens alone.
    return found if len(found) > len(set(found.all_special_ids)) else None
