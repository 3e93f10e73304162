"""What a backend is.

A backend is one way to compute a masked attention; all compute the same function, the one that
`reference` spells out. Defining a subclass with a `name` registers it; a module in this package
whose name has no leading underscore is imported on first use, and so is what other distributions
name in the entry-point group `sparseattn.backends`. A backend that is chosen by name never falls
back: it raises with every reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparseattn.errors import BackendError
from sparseattn.registry import Registered, Registry
from sparseattn.rules import LayerRule

#: The name that leaves the choice to `select`.
AUTO = "auto"
#: The reason of a choice by name.
BY_NAME = "chosen by name"


@dataclass(frozen=True, eq=False)
class DistanceBias:
    """A number for each head and distance, as the relative positions of MPNet and T5 add.

    Attributes:
        values: What is added where the key stands `d` tokens after the query, at
            `d + length - 1`. Shape: [heads, 2 * length - 1].
    """

    values: Tensor

    def dense(self) -> Tensor:
        """The same for each pair. Shape: [1, heads, length, length]."""
        # With gradient it is made anew: a layer that is checkpointed must find what it had.
        return self._spread() if torch.is_grad_enabled() else self._kept

    @cached_property
    def _kept(self) -> Tensor:
        return self._spread()

    def _spread(self) -> Tensor:
        length = (self.values.shape[1] + 1) // 2
        return self.values.unfold(1, length, 1).flip(1)[None]


@dataclass(frozen=True, eq=False)
class Call:
    """One attention to compute.

    Attributes:
        query: Shape: [batch, heads, length, head width].
        key: Shape: [batch, heads, length, head width].
        value: Shape: [batch, heads, length, head width].
        rule: What each query may attend to.
        scale: Factor of the scores, usually `head width ** -0.5`.
        dropout: Chance that an attention weight is dropped, in [0, 1). 0 outside training.
        bias: Added to the scaled scores before masking; gradients flow into it.
            Shape: broadcastable to [batch, heads, length, length], or a number a distance.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    rule: LayerRule
    scale: float
    dropout: float = 0.0
    bias: Tensor | DistanceBias | None = None

    @property
    def trains(self) -> bool:
        """Whether gradients are computed."""
        bias = self.bias.values if isinstance(self.bias, DistanceBias) else self.bias
        states = (self.query, self.key, self.value, bias)
        return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in states)

    @property
    def dense_bias(self) -> Tensor | None:
        """The bias of each pair. Shape: broadcastable to [batch, heads, length, length]."""
        return self.bias.dense() if isinstance(self.bias, DistanceBias) else self.bias


#: Every backend by name, in alphabetical order.
backends: Registry[Backend] = Registry("backend", "sparseattn.backends", BackendError)


class Backend(Registered, ABC):
    """One way to compute `softmax(mask(scale * query key^T + bias)) value`."""

    registry: ClassVar[Registry[Any]] = backends
    #: One line for `sparseattn backends` and the documentation.
    summary: ClassVar[str] = ""

    @classmethod
    def _entry(cls) -> Backend:
        return cls()

    def reasons(self, call: Call) -> list[str]:  # noqa: ARG002
        """Why it cannot compute this call; empty when it can."""
        return []

    def remark(self, device: str) -> str | None:  # noqa: ARG002
        """What is worth knowing of it on a kind of device of this machine; None for nothing."""
        return None

    @abstractmethod
    def attend(self, call: Call) -> Tensor:
        """Computes the attention.

        Returns:
            The context of each query; zeros for a query that may attend to nothing.
            Shape: [batch, heads, length, head width], the dtype of the query.
        """

    def computed(self, rule: LayerRule) -> int:
        """Score entries that it really computes for a rule, summed over batch and heads.

        Every pair, padding included, unless a backend says otherwise.
        """
        return len(rule.valid) * rule.heads * rule.length**2

    def work(self, rule: LayerRule) -> float:
        """Entries of a window that would take as long as those that it computes for a rule."""
        return self.computed(rule)


def backend(name: str) -> Backend:
    """The backend called `name`.

    Raises:
        BackendError: There is none; the message lists the names.
    """
    return backends.find(name, others=(AUTO,))
