"""Reaching a stated sparsity while training: dual ascent, and what changes over the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["DualAscent", "Schedule"]


@dataclass
class DualAscent:
    """A Lagrangian whose weights grow for as long as the budget is missed.

    `lambda1 g + lambda2 g^2` for the gap `g = log(c / c*)` of a density c and its target c*; both
    weights take gradient ascent steps. Lambda1 may become negative, which pulls a density up that
    is too low. Unlike in the sources the gap is that of logarithms: a density of 0.01 is far from a
    target of 0.05, and a difference of 0.04 would say too little of it against the task's loss. And
    lambda2 starts above 0: an integral alone overshoots and swings, because Adam moves the
    distributions at one speed however large their gradient; a term in proportion to the gap turns
    them round in time.

    Source: Wang, Wohlwend and Lei, arXiv 1910.04732, section 3.3; CoFi, arXiv 2204.00408.

    Attributes:
        rate: Step size of the ascent.
        lambda1: Weight of the linear term.
        lambda2: Weight of the quadratic term.
    """

    rate: float
    lambda1: float = 0.0
    lambda2: float = 0.5

    def penalty(self, density: Tensor, target: float) -> Tensor:
        """What is added to the loss: a scalar."""
        gap = density.log() - math.log(target)
        return self.lambda1 * gap + self.lambda2 * gap**2

    def ascend(self, density: float, target: float) -> None:
        """Takes a step, after an optimiser step has been taken at this density."""
        gap = math.log(density / target)
        self.lambda1 += self.rate * gap
        self.lambda2 += self.rate * gap**2


@dataclass(frozen=True)
class Schedule:
    """The target and the temperature over the steps of a soft phase.

    Attributes:
        steps: Steps of the phase.
        warmup: Share of them over which the target goes from the start to the goal.
        start: Density that the target starts from.
        goal: Density that it ends at.
        hot: First temperature.
        cold: Last temperature; it falls in a geometric series after the warm-up.
    """

    steps: int
    warmup: float
    start: float
    goal: float
    hot: float
    cold: float

    def target(self, step: int) -> float:
        """The density to aim for at a step, counted from 0."""
        share = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.start + (self.goal - self.start) * share

    def temperature(self, step: int) -> float:
        """The temperature at a step, counted from 0."""
        begin = self.warmup * self.steps
        share = min(1.0, max(0.0, (step - begin) / max(1.0, self.steps - 1 - begin)))
        return float(self.hot * (self.cold / self.hot) ** share)
