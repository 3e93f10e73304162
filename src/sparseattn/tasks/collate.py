"""Joining examples into a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sparseattn.tokens import COLUMNS

__all__ = ["Batches"]


@dataclass(frozen=True)
class Batches:
    """Pads examples on the right, to the longest of the batch.

    Columns that are not for the model are left out.

    Attributes:
        fills: What pads each column that is for the model.
    """

    fills: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: Any) -> Batches:
        """The batches that go with a tokenizer."""
        inputs = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": tokenizer.pad_token_type_id,
            "special_tokens_mask": 1,
        }
        labels = dict.fromkeys(("labels", "start_positions", "end_positions"), -100)
        return cls({**dict.fromkeys(COLUMNS, -1), **inputs, **labels})

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Joins examples.

        Returns:
            `attention_mask` and the columns. Shape: [batch, length], or [batch] for one value an
            example.
        """
        batch = {}
        for name in examples[0]:
            if name in self.fills:
                batch[name] = _joined([example[name] for example in examples], self.fills[name])
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        places = torch.arange(batch["input_ids"].shape[1])
        batch["attention_mask"] = (places[None, :] < lengths[:, None]).long()
        return batch


def _joined(values: list[Any], fill: int) -> Tensor:
    if not isinstance(values[0], list):
        return torch.tensor(values)
    return pad_sequence([torch.tensor(v) for v in values], batch_first=True, padding_value=fill)
