"""Which model a name stands for, wherever it lies. Light to import."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path

from sparseattn.errors import DataError
from sparseattn.models.names import resolve

#: What a model is built from: nothing but safetensors is read.
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")

#: Weights that are never read, but tell folders apart that have no others.
_PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")

#: How text becomes tokens: options and special tokens, and the whole tokenizer in one file.
_OPTIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TOKENIZER = "tokenizer.json"

#: What fast tokenizers are made from where that file is not there.
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "*.model")


def identity(name: str) -> str:
    """Tells a model from another, by what it computes and how its text is cut.

    It is the same in a folder, in a package and on the Hugging Face Hub: a hash over the names and
    contents of config.json, the weights as safetensors, and what makes the tokenizer, each at the
    top of the folder. With a tokenizer.json other vocabulary files do not count, since transformers
    does not read them then. Nor does what a study never reads: pooling and other modules of
    sentence-transformers, generation defaults, a model card, training data and scripts, weights in
    other formats.

    Args:
        name: See `sparseattn.resolve`. What is missing of a model on the Hub is downloaded.

    Returns:
        16 hexadecimal digits; of a model on the Hub without safetensors, `commit` and the commit;
        empty where it cannot be had, so that whoever loads it says what is wrong.

    Raises:
        MissingExtraError: See `sparseattn.resolve`.
        DataError: See `sparseattn.resolve`; or a file cannot be read.
    """
    place = resolve(name)
    local = Path(place).is_dir()
    folder = Path(place) if local else _snapshot(place)
    if folder is None:
        return ""
    try:
        weights = _there(folder, _WEIGHTS)
        if not weights and not local:
            return f"commit {folder.name}"
        weights = weights or _there(folder, _PICKLES)
        tokenizer = _there(folder, [_TOKENIZER]) or _there(folder, _VOCABULARIES)
        return _hashed({*_there(folder, [_CONFIG, *_OPTIONS]), *weights, *tokenizer})
    except OSError as error:
        raise DataError(f"model {name!r}: cannot read {place}: {error.strerror}") from None


def _snapshot(name: str) -> Path | None:
    """The folder of the files that count of a model on the Hub; None where it cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    files = [_CONFIG, *_WEIGHTS, *_OPTIONS, _TOKENIZER, *_VOCABULARIES]
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception:  # of the network, the Hub or the name
        return None
    finally:
        if shown:
            enable_progress_bars()


def _there(folder: Path, names: Iterable[str]) -> set[Path]:
    return {path for name in names for path in folder.glob(name) if path.is_file()}


def _hashed(files: Iterable[Path]) -> str:
    digest = sha256()
    for path in sorted(files):
        digest.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
