"""How many tokens a model reads, by its config or its tables of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import UnsupportedModelError
from sparseattn.models.encoder import random_outputs

#: Families that number positions from after the padding token's id.
_SHIFTED = {
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke",
    "markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip

#: Tokens of the run that shows where positions are looked up.
_TOKENS = 8


def max_tokens(config: Any, tokenizer: Any = None) -> int | None:
    """How many tokens a model reads, special tokens included; None without a limit.

    Args:
        config: The model's config; its limit is that of its positions.
        tokenizer: Its tokenizer may keep fewer.
    """
    limits = []
    if (stated := getattr(config, "max_position_embeddings", None)) and stated > 0:
        padding = 1 if config.model_type == "mpnet" else config.pad_token_id or 0
        limits.append(stated - (padding + 1 if config.model_type in _SHIFTED else 0))
    # Tokenizers that know no limit say 10 ** 30.
    if 0 < (kept := getattr(tokenizer, "model_max_length", None) or 0) < 10**9:
        limits.append(kept)
    return min(limits, default=None)


@dataclass(frozen=True)
class Positions:
    """How a model knows where a token stands: seen in a run, not looked up in a list of classes.

    Attributes:
        tables: Embeddings that were handed the numbers of the positions, by the module's name, and
            the number of the first: RoBERTa and its kin start after the padding token's.
        relative: Whether an embedding was handed a number for each pair of tokens, as in T5.
        rotary: Whether it turns its queries and keys by frequencies that it keeps.
        limit: How many tokens there are positions for; None without a limit.
    """

    tables: dict[str, int]
    relative: bool
    rotary: bool
    limit: int | None

    @classmethod
    def of(cls, model: Any, encoder: Any) -> Positions:
        """Runs the encoder on a few tokens and watches what its model's embeddings are handed."""
        inputs, square = _embedding_inputs(model, encoder), (_TOKENS, _TOKENS)
        relative = any(ids.shape[-2:] == square for calls in inputs.values() for ids in calls)
        rotary = any(name.endswith("inv_freq") for name, _ in model.named_buffers())
        tables = _tables(inputs)
        sizes = {n: model.get_submodule(n).weight.shape[0] - at for n, at in tables.items()}
        if len(set(sizes.values())) > 1:
            each = ", ".join(f"{name} for {count}" for name, count in sizes.items())
            raise UnsupportedModelError(
                f"{type(encoder).__name__} cannot be lengthened: its tables hold positions for "
                f"different lengths: {each}"
            )
        limit = getattr(encoder.config, "max_position_embeddings", None)
        if sizes:
            limit = next(iter(sizes.values()))
        return cls(tables, relative, rotary, limit if limit and limit > 0 else None)


def position_tables(encoder: Any) -> dict[str, int]:
    """The tables of positions of an encoder, see `Positions`; none where a run shows none."""
    try:
        return _tables(_embedding_inputs(encoder, encoder))
    except UnsupportedModelError:
        return {}


def _embedding_inputs(model: Any, encoder: Any) -> dict[str, list[Tensor]]:
    """What each embedding of a model is handed in a run of a few tokens."""
    inputs: dict[str, list[Tensor]] = {}

    def watch(calls: list[Tensor]) -> Any:
        return lambda _module, args: calls.extend(x for x in args[:1] if isinstance(x, Tensor))

    hooks = [
        module.register_forward_pre_hook(watch(inputs.setdefault(name, [])))
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        random_outputs(encoder, [_TOKENS])
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _tables(inputs: dict[str, list[Tensor]]) -> dict[str, int]:
    tables = {}
    for name, calls in inputs.items():
        starts = {_start(ids) for ids in calls}
        if len(starts) == 1 and (start := starts.pop()) is not None:
            tables[name] = start
    return tables


def _start(ids: Tensor) -> int | None:
    """The first of these positions; None where they do not go up by one a token."""
    if not ids.dim() or ids.shape[-1] != _TOKENS or ids.is_floating_point():
        return None
    start = int(ids.flatten()[0])
    positions = torch.arange(start, start + _TOKENS, device=ids.device)
    return start if bool((ids == positions).all()) else None
