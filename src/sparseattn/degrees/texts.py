"""Texts as a model sees them: the batches that budgets are counted over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sparseattn.degrees.cost import Costs
from sparseattn.degrees.menu import Menu
from sparseattn.degrees.settings import Settings
from sparseattn.errors import DataError
from sparseattn.models.attach import Attached, attached, sparsified
from sparseattn.plan import Plan
from sparseattn.tokens import TokenBatch

__all__ = ["Texts", "every"]

Batch = Mapping[str, Any]
_AT_A_TIME = 64


class Texts:
    """Tokenised examples, joined into batches.

    Args:
        model: The model that they are for.
        data: Rows with `input_ids`, and whatever the collator takes.
        collator: Joins rows into a padded batch.
        most: Rows to use, spread evenly over the data.

    Raises:
        DataError: There are none.
    """

    def __init__(
        self, model: nn.Module, data: Any, collator: Callable[[list[Any]], Batch], most: int
    ) -> None:
        if not len(data):
            raise DataError("a sparsity is counted over texts, and the data are empty")
        self.model, self.data, self.collator = model, data, collator
        self.rows = every(len(data), most)

    def batches(self) -> Iterator[Batch]:
        """The rows, in batches on the model's device."""
        device = next(self.model.parameters()).device
        for start in range(0, len(self.rows), _AT_A_TIME):
            rows = [self.data[row] for row in self.rows[start : start + _AT_A_TIME]]
            batch = self.collator(rows)
            yield {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            }

    def tokens(self, plan: Plan) -> list[TokenBatch]:
        """What a plan may know of each batch, moved to the CPU."""
        with sparsified(self.model, plan):
            state = attached(self.model)
            assert state is not None, "sparsified just above"
            return [state.record.tokens(dict(batch), None) for batch in self.batches()]


def every(count: int, most: int) -> list[int]:
    """At most so many indices, spread evenly.

    >>> every(5, 3)
    [0, 1, 3]
    """
    return [index * count // most for index in range(most)] if count > most else list(range(count))
