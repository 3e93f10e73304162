"""How an arm of a study is called."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ArmKey"]

#: Selections of layers that have a plain name.
_PLACEMENTS = (
    ("", "none"),
    (":", "all"),
    (r"-(\d+):", r"last \1"),
    (r"(\d+):", r"from \1 on"),
    (r":(\d+)", r"first \1"),
)


@dataclass(frozen=True)
class ArmKey:
    """What is varied: a named setting on a choice of layers.

    Attributes:
        name: The name that the study's spec gives it.
        layers: The layers that carry its pattern, such as `"3:"`; `":"` is all of them and empty
            is none.
    """

    name: str
    layers: str = ""

    @property
    def address(self) -> str:
        """How to name it on the command line: `name@layers`, or `name` without layers."""
        return f"{self.name}@{self.layers}" if self.layers else self.name

    @property
    def family(self) -> str:
        """Its name without its place in a grid.

        >>> ArmKey("learned s=0.7 k=2").family
        'learned'
        """
        return re.sub(r"( \w+=\S+)+$", "", self.name)

    @property
    def placement(self) -> str:
        """Its layers in words; layers are counted from 0."""
        for spelled, words in _PLACEMENTS:
            if match := re.fullmatch(spelled, self.layers):
                return match.expand(words)
        return self.layers

    def __str__(self) -> str:
        """Its name and layers in words."""
        return f"{self.name}, layers {self.placement}" if self.layers else self.name
