"""How a model knows where a token stands: seen in a run, not looked up in a list of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import UnsupportedModelError
from sparseattn.models.lengthen.runs import outputs, refused

__all__ = ["Positions", "find", "limit_of", "tables_of"]

#: Tokens of the run that shows it.
_TOKENS = 8


@dataclass(frozen=True)
class Positions:
    """How a model knows where a token stands.

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


def find(model: Any, encoder: Any) -> Positions:
    """Runs the encoder on a few tokens and watches what its embeddings are handed.

    Args:
        model: The transformers model that holds the encoder, head included.
        encoder: What receives `input_ids`.

    Raises:
        UnsupportedModelError: It does not run, or its table of positions cannot be understood.
    """
    handed = _handed(model, encoder)
    pairs = any(numbers.shape[-2:] == (_TOKENS, _TOKENS) for c in handed.values() for numbers in c)
    rotary = any(name.endswith("inv_freq") for name, _ in model.named_buffers())
    tables = _tables(handed)
    return Positions(tables, pairs, rotary, _limit(model, encoder, tables))


def tables_of(encoder: Any) -> dict[str, int]:
    """The tables of positions of an encoder, see `Positions`; none where a run shows none."""
    try:
        return _tables(_handed(encoder, encoder))
    except UnsupportedModelError:
        return {}


def _handed(model: Any, encoder: Any) -> dict[str, list[Tensor]]:
    """What each embedding of a model is handed in a run of a few tokens."""
    handed: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(_watching(handed.setdefault(name, [])))
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        outputs(encoder, [_TOKENS])
    finally:
        for hook in hooks:
            hook.remove()
    return handed


def _tables(handed: dict[str, list[Tensor]]) -> dict[str, int]:
    tables = {}
    for name, calls in handed.items():
        first = {_first(numbers) for numbers in calls}
        if len(first) == 1 and (start := first.pop()) is not None:
            tables[name] = start
    return tables


def limit_of(config: Any) -> int | None:
    """What a config says is the limit; None where it names none."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def _watching(calls: list[Tensor]) -> Any:
    def watch(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            calls.append(args[0])

    return watch


def _first(numbers: Tensor) -> int | None:
    """The first of the positions, if that is what these numbers are: they go up by one a token."""
    if not numbers.dim() or numbers.shape[-1] != _TOKENS or numbers.is_floating_point():
        return None
    start = int(numbers.flatten()[0])
    wanted = torch.arange(start, start + _TOKENS, device=numbers.device)
    return start if bool((numbers == wanted).all()) else None


def _limit(model: Any, encoder: Any, tables: dict[str, int]) -> int | None:
    limits = {}
    for name, start in tables.items():
        limits[name] = model.get_submodule(name).weight.shape[0] - start
    if len(set(limits.values())) > 1:
        told = ", ".join(f"{name} for {count}" for name, count in limits.items())
        raise refused(encoder, f"its tables hold positions for different lengths: {told}")
    return next(iter(limits.values())) if limits else limit_of(encoder.config)
