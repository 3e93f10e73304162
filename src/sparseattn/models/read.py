"""Reading one text the way a model would: its tokens, and the annotations that a pattern needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.models.load import load_part
from sparseattn.models.names import DEFAULT
from sparseattn.models.positions import max_tokens
from sparseattn.syntax import Annotator
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class Reading:
    """One text, or a pair, as a model reads it.

    Attributes:
        tokens: A batch of one, without padding.
        labels: What each token looks like.
        cut: Tokens left out because the model has no positions for them.
        longest: Tokens that the model has positions for; None without a limit.
        layers: Attention layers of the model.
        heads: Heads of each of them.
    """

    tokens: TokenBatch
    labels: tuple[str, ...]
    cut: int
    longest: int | None
    layers: int
    heads: int


def check_texts(text: str, pair: str | None = None) -> None:
    """A `DataError` for a text, or one of a pair, that is empty or not valid Unicode."""
    texts = [("text", text)] if pair is None else [("text", text), ("pair", pair)]
    for name, value in texts:
        if not value.strip():
            raise DataError(f"the {name} is empty: {value!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(f"the {name} is not valid Unicode: {value!r}")


def read(
    text: str,
    pair: str | None = None,
    *,
    model: str = DEFAULT,
    needs: frozenset[str] = frozenset(),
) -> Reading:
    """Reads a text, or a pair, cut to the model's positions.

    A parser or the model's weights are loaded only for the annotations that `needs` names.

    Raises:
        DataError: A text is empty or not valid Unicode, or the model cannot be loaded.
        MissingExtraError: The model's package or the parser is not installed.
    """
    check_texts(text, pair)
    config, tokenizer = load_part(model, "AutoConfig"), load_part(model, "AutoTokenizer")
    whole = len(tokenizer(text, pair, verbose=False)["input_ids"])
    limit = max_tokens(config, tokenizer)
    options: dict[str, Any] = {"verbose": False}
    if limit is not None:
        options |= {"truncation": True, "max_length": limit}
    pairs = None if pair is None else [pair]
    annotator = Annotator.for_needs(tokenizer, needs)
    if annotator is not None:
        columns = dict(annotator([text], pairs, **options))
    else:
        columns = tokenizer([text], pairs, return_special_tokens_mask=True, **options)
    if all(columns["special_tokens_mask"][0]):
        raise DataError(f"the text holds no token that the tokenizer of {model!r} knows: {text!r}")
    tensors = {name: torch.tensor(values) for name, values in columns.items()}
    ids = tensors["input_ids"]
    separators = [i for i in (tokenizer.sep_token_id, tokenizer.eos_token_id) if i is not None]
    known: dict[str, Tensor | None] = {
        "separators": torch.isin(ids, torch.tensor(separators, dtype=ids.dtype))
    }
    if "embedding" in needs:
        known["embedding"] = load_part(model, "AutoModel").get_input_embeddings().weight.detach()
    return Reading(
        tokens=TokenBatch.of_columns(tensors, **known),
        labels=tuple(tokenizer.decode([index]).strip() or "␣" for index in ids[0].tolist()),
        cut=whole - ids.shape[1],
        longest=limit,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
    )
