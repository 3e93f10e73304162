"""Reading one text the way a model would: its tokens, and the annotations that a pattern needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.models.quiet import quiet
from sparseattn.tokens import PARSED, TokenBatch

__all__ = ["Reading", "loaded", "longest", "positions", "read"]

#: Families that start counting positions after the padding token's id.
_SHIFTED = {
    "camembert", "data2vec-text", "esm", "longformer", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One text, or a pair, as a model reads it.

    Attributes:
        tokens: A batch of one, without padding.
        labels: What each token looks like.
        cut: Tokens left out because the model has no positions for them.
        longest: Tokens that the model has positions for; None without a limit.
        layers: Attention layers of the model.
    """

    tokens: TokenBatch
    labels: tuple[str, ...]
    cut: int
    longest: int | None
    layers: int


def read(
    text: str,
    pair: str | None = None,
    *,
    model: str = DEFAULT,
    needs: frozenset[str] = frozenset(),
) -> Reading:
    """Reads a text, cut to the model's positions.

    Args:
        text: The text.
        pair: A second text, for models that read pairs.
        model: See `sparseattn.models.names.resolve`.
        needs: Annotations to make; a parser or the model's weights are loaded for these only.

    Raises:
        DataError: A text is empty or not valid Unicode, or the model cannot be loaded.
        MissingExtraError: The model's package or the parser is not installed.
    """
    texts = [("text", text)] if pair is None else [("text", text), ("pair", pair)]
    for name, value in texts:
        if not value.strip():
            raise DataError(f"the {name} is empty: {value!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(f"the {name} is not valid Unicode: {value!r}")
    config, tokenizer = loaded(model, "AutoConfig"), loaded(model, "AutoTokenizer")
    whole = len(tokenizer(text, pair, verbose=False)["input_ids"])
    limit = longest(config, tokenizer)
    cutting = {} if limit is None else {"truncation": True, "max_length": limit}
    columns = _columns(tokenizer, text, pair, cutting, bool(needs & PARSED))
    if all(columns["special_tokens_mask"][0]):
        raise DataError(f"the text holds no token that the tokenizer of {model!r} knows: {text!r}")
    tensors = {name: torch.tensor(values) for name, values in columns.items()}
    ids = tensors["input_ids"]
    known: dict[str, Tensor | None] = {"separators": _separators(ids, tokenizer)}
    if "embedding" in needs:
        known["embedding"] = loaded(model, "AutoModel").get_input_embeddings().weight.detach()
    return Reading(
        tokens=TokenBatch.of_columns(tensors, **known),
        labels=tuple(tokenizer.decode([index]).strip() or "␣" for index in ids[0].tolist()),
        cut=whole - ids.shape[1],
        longest=limit,
        layers=config.num_hidden_layers,
    )


def longest(config: Any, tokenizer: Any) -> int | None:
    """How many tokens a model reads, special tokens included; None without a limit."""
    # Tokenizers that know no limit say 10 ** 30.
    limits = [n for n in (positions(config), tokenizer.model_max_length) if n and 0 < n < 10**9]
    return min(limits, default=None)


def positions(config: Any) -> int | None:
    """How many tokens a config has positions for; None without a limit."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    if found is None or found <= 0:
        return None
    return found - ((config.pad_token_id or 0) + 1 if config.model_type in _SHIFTED else 0)


def _columns(
    tokenizer: Any, text: str, pair: str | None, cutting: dict[str, Any], parsed: bool
) -> dict[str, list[list[int]]]:
    pairs = None if pair is None else [pair]
    if parsed:
        from sparseattn.syntax import Annotator

        return dict(Annotator(tokenizer)([text], pairs, verbose=False, **cutting))
    made = tokenizer([text], pairs, return_special_tokens_mask=True, verbose=False, **cutting)
    return {name: made[name] for name in ("input_ids", "attention_mask", "special_tokens_mask")}


def _separators(ids: Tensor, tokenizer: Any) -> Tensor:
    found = [i for i in (tokenizer.sep_token_id, tokenizer.eos_token_id) if i is not None]
    return torch.isin(ids, torch.tensor(found, dtype=ids.dtype))


def loaded(model: str, kind: str) -> Any:
    """Loads a part of a model, weights from safetensors only.

    Args:
        model: See `sparseattn.models.names.resolve`.
        kind: `AutoTokenizer`, `AutoConfig`, or the class of a model.

    Raises:
        DataError: It cannot be loaded.
    """
    import transformers

    where = resolve(model)
    with quiet():
        try:
            # Weights as pickles are never read: unpickling can run code.
            weights = {} if kind in ("AutoTokenizer", "AutoConfig") else {"use_safetensors": True}
            return getattr(transformers, kind).from_pretrained(where, **weights)
        except (OSError, ValueError, KeyError) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"model {model!r} cannot be loaded; give a local folder, a Hub name or "
                f"package:NAME ({why})"
            ) from None
