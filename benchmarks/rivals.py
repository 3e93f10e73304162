"""The encoders that take turns in encoders.py, and at which sizes: BERT, Longformer, BigBird.

All have random weights. *Floor* and *bound* are those of `sparseattn.bench.timing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    BigBirdConfig,
    BigBirdModel,
    LongformerConfig,
    LongformerModel,
)

__all__ = ["HEADS", "ROWS", "Row", "bert", "bigbird", "longformer", "states"]

HEADS = 12
#: BigBird's block; its window is one block to either side and a token's own.
BLOCK = 64


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        layers: Layers of the encoder.
        width: Its width.
        length: Tokens a text.
        trains: Whether a forward and backward pass is timed rather than inference.
        dropout: Dropout of attention weights.
        most: What the sparse encoder's time may be, as a multiple of each contestant's; none for
            contestants that are timed for information.
        radius: Of the plan's window; the first token is global.
        texts: Texts a batch.
        device: Where all encoders are.
    """

    layers: int
    width: int
    length: int
    trains: bool
    dropout: float
    most: dict[str, float | None]
    radius: int = 64
    texts: int = 1
    device: str = "cpu"

    @property
    def plan(self) -> str:
        """The plan of the sparse encoder."""
        return f"neighbor(radius={self.radius}) | global(cls)"

    @property
    def work(self) -> str:
        """What the row is about, in words."""
        what = f"training step, dropout {self.dropout:g}" if self.trains else "inference"
        batch = f"{self.texts} x {self.length}" if self.texts > 1 else str(self.length)
        return f"{what}, {self.layers} x {self.width}, {batch} tokens, radius {self.radius} + cls"


def _rows() -> dict[str, Row]:
    rivals = {"stock": 1.0, "longformer": 1.0, "bigbird": 1.0}
    rows = {}
    # Of short texts as many as make 4096 tokens, which is what the targets are for, and one.
    for texts in (8, 1):
        most = {"floor": None, "bound": None, "stock": 0.5}
        rows[f"dropout-{texts}x512"] = Row(6, 384, 512, True, 0.1, most, radius=32, texts=texts)
    for texts in (32, 1):
        near = {"stock": 1.03}
        for name, trains in (("inference", False), ("dropout", True)):
            dropout = 0.1 if trains else 0.0
            rows[f"{name}-{texts}x128"] = Row(
                6, 384, 128, trains, dropout, near, radius=32, texts=texts
            )
    for layers, width in ((6, 384), (12, 768)):
        size = f"{layers}x{width}"
        rows[f"inference-{size}"] = Row(layers, width, 4096, False, 0.0, {"floor": 1.1, **rivals})
        for name, dropout in (("dropout", 0.1), ("training", 0.0)):
            most = {"floor": 1.35, "bound": None, **rivals}
            rows[f"{name}-{size}"] = Row(layers, width, 4096, True, dropout, most)
    return rows


ROWS = _rows()


def bert(row: Row, layers: int | None = None) -> BertModel:
    """The stock encoder; the same weights each time."""
    torch.manual_seed(0)
    config = BertConfig(**_size(row, layers), max_position_embeddings=row.length)
    return BertModel(config, add_pooling_layer=False).to(row.device).train(row.trains)


def _size(row: Row, layers: int | None = None) -> dict[str, Any]:
    return {
        "vocab_size": 1000,
        "hidden_size": row.width,
        "num_hidden_layers": layers or row.layers,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * row.width,
        "attention_probs_dropout_prob": row.dropout,
    }


def longformer(row: Row) -> Callable[[Tensor], Tensor]:
    """Longformer with the same window and a global first token.

    Its `attention_window` counts both sides: twice the radius.
    """
    config = LongformerConfig(
        **_size(row), max_position_embeddings=row.length + 2, attention_window=2 * row.radius
    )
    model = LongformerModel(config, add_pooling_layer=False).to(row.device).train(row.trains)

    def run(ids: Tensor) -> Tensor:
        first = torch.zeros_like(ids)
        first[:, 0] = 1
        return model(input_ids=ids, global_attention_mask=first).last_hidden_state

    return run


def bigbird(row: Row) -> Callable[[Tensor], Tensor]:
    """BigBird with blocks of 64, which its window needs to hold ours, and one random block.

    It makes its first and last block global, cannot do without random blocks, and drops no
    attention weights whatever its config says.
    """
    config = BigBirdConfig(
        **_size(row), max_position_embeddings=row.length, hidden_act="gelu",
        attention_type="block_sparse", block_size=BLOCK, num_random_blocks=1,
    )  # fmt: skip
    model = BigBirdModel(config, add_pooling_layer=False).to(row.device).train(row.trains)
    return partial(states, model)


def states(model: Any, ids: Tensor) -> Tensor:
    """The last hidden states. Shape: [texts, length, width]."""
    return model(input_ids=ids).last_hidden_state
