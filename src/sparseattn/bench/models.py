"""Models with random weights to time, batches for them, and their times."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseattn.backend import AUTO
from sparseattn.errors import UnsupportedModelError
from sparseattn.models.config import FIELD, remove_plan
from sparseattn.models.names import not_found, resolve
from sparseattn.models.positions import max_tokens
from sparseattn.models.sparsify import sparsify
from sparseattn.models.state import attached_state
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

#: Tokens of the texts that a forecast runs; every model gets positions for as many.
PROBE = 256


@dataclass(frozen=True)
class Times:
    """Times of one batch, in seconds.

    Attributes:
        length: Tokens a text.
        dense: The stock model.
        sparse: The sparsified model.
        rest: Either without attention: values instead of it, and gradients that cost nothing.
        backends: The backends that the layers use.
    """

    length: int
    dense: float
    sparse: float
    rest: float
    backends: tuple[str, ...]

    @property
    def speedup(self) -> float:
        """How many times faster the sparsified model is."""
        return self.dense / self.sparse

    @property
    def share(self) -> float:
        """Share of the stock model's time that attention takes, in [0, 1]."""
        return 1 - self.rest / self.dense


@dataclass(frozen=True)
class BenchModel:
    """A model to time; its weights are random, because they do not change the time.

    Attributes:
        name: Its folder, or its name on the Hub.
        model: The encoder.
        layers: Attention layers.
        heads: Heads of each.
        width: Head width.
        positions: Tokens that the saved model has positions for; None without a limit.
    """

    name: str
    model: Any
    layers: int
    heads: int
    width: int
    positions: int | None = None

    def batch(self, texts: int, length: int) -> dict[str, Tensor]:
        """A batch of random tokens without padding. Shape: [texts, length]."""
        generator = torch.Generator().manual_seed(0)
        high = min(1000, self.model.config.vocab_size)
        ids = torch.randint(5, high, (texts, length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def tokens(self, batch: dict[str, Tensor]) -> TokenBatch:
        """What a pattern may know of random tokens: none is special, and none has a parse."""
        valid = batch["attention_mask"].bool()
        weight = getattr(self.model.get_input_embeddings(), "weight", None)
        return TokenBatch(
            valid,
            ids=batch["input_ids"],
            special=torch.zeros_like(valid),
            separators=torch.zeros_like(valid),
            embedding=None if weight is None else weight.detach(),
        )

    def sparsified(self, plan: Plan, backend: str = AUTO) -> Any:
        """A copy of the model under a plan."""
        return sparsify(deepcopy(self.model), plan, backend=backend)


def run(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The last hidden states. Shape: [texts, length, hidden width]."""
    if attached_state(model) is not None:  # none of its random tokens is special
        batch = {**batch, "special_tokens_mask": torch.zeros_like(batch["input_ids"])}
    out: Tensor = model(**batch).last_hidden_state
    return out


def load(name: str, longest: int, trains: bool) -> BenchModel:
    """Builds a model from a config, with random weights and without the plan that it may have.

    It has positions for the longest text, whatever its config says.

    Args:
        name: A folder, a model of the Hub or `package:NAME`; only its config is read.
        longest: The most tokens that it will see.
        trains: Whether it is timed in training, its dropout included.

    Raises:
        UnsupportedModelError: There is no such config.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(resolve(name), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(
            f"cannot read the config of {name!r}: {not_found(name, error)}"
        ) from None
    if FIELD in vars(config):  # the stock model is dense
        remove_plan(config)
        config._attn_implementation = None
    usable = max_tokens(config)
    if usable is not None:
        # How many positions there are does not change the time.
        config.max_position_embeddings += max(0, longest - usable, PROBE - usable)
    build: Any = AutoModel.from_config
    model = build(config).train(trains)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    layers = config.num_hidden_layers
    return BenchModel(name, model, layers, heads, width, usable)
