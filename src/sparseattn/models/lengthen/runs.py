"""Running an encoder on made-up tokens, to see what it does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import SparseAttnError, UnsupportedModelError
from sparseattn.models.state import ATTRIBUTE

__all__ = ["PADDED", "batch", "evaluating", "outputs", "refused"]

#: A short batch with padding: real tokens of each text.
PADDED = (24, 7)


def refused(model: nn.Module, why: str) -> UnsupportedModelError:
    """The error that says why a model cannot be lengthened."""
    return UnsupportedModelError(f"{type(model).__name__} cannot be lengthened: {why}")


def batch(encoder: Any, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Ordinary tokens of the encoder's vocabulary, padded on the right.

    Args:
        encoder: Says how many tokens there are, and which of them are special.
        lengths: Real tokens of each text.

    Returns:
        `input_ids`, `attention_mask` and the annotations that a plan on the encoder may need. Each
        of shape [texts, longest].

    Raises:
        UnsupportedModelError: It does not read tokens.
    """
    if "input_ids" not in inspect.signature(encoder.forward).parameters:
        raise refused(encoder, "it does not read text (input_ids)")
    config = encoder.config
    special = {value for name, value in vars(config).items() if name.endswith("_token_id")}
    size = getattr(config, "vocab_size", None) or 8
    ordinary = torch.tensor([index for index in range(size) if index not in special])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(ordinary), (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.where(mask, ordinary[drawn], getattr(config, "pad_token_id", None) or 0)
    columns = {"input_ids": ids, "attention_mask": mask.long()}
    state = getattr(encoder, ATTRIBUTE, None)
    if state is not None and state.record.plan.needs:
        # One sentence of one-token words, all under the first of them.
        made = {"word_index": torch.arange(max(lengths)).expand_as(ids)}
        made |= dict.fromkeys(("sentence_index", "head_index"), torch.zeros_like(ids))
        columns |= {name: column.where(mask, -1) for name, column in made.items()}
        columns["special_tokens_mask"] = (~mask).long()
    where = next(encoder.parameters()).device
    return {name: column.to(where) for name, column in columns.items()}


def outputs(encoder: Any, lengths: Sequence[int]) -> Tensor:
    """The encoder's first output for made-up texts. Shape: [texts, longest, hidden width].

    Raises:
        UnsupportedModelError: It does not run.
    """
    columns = batch(encoder, lengths)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            found: Tensor = encoder(**columns)[0]
    except SparseAttnError:
        raise
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refused(encoder, f"a text of {max(lengths):,} tokens does not run: {why}") from error
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turns dropout off; afterwards each module is in the mode in which it was."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
