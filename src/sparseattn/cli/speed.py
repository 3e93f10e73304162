"""A speed-up as the target of `sparseattn learn`: the sparsity that is predicted to give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sparseattn.errors import PlanError
from sparseattn.files import write_whole

if TYPE_CHECKING:
    from sparseattn.bench.predict import Predictor
    from sparseattn.degrees.learn import Learner
    from sparseattn.plan import Plan

__all__ = ["SpeedTarget"]

#: How near to the sparsity the search by halves comes.
_CLOSE = 0.002


@dataclass
class SpeedTarget:
    """A speed-up at a length, predicted as `bench predict` does: on this machine, one text a batch.

    Attributes:
        model: The model's name.
        speedup: How many times faster than the stock model, above 1.
        length: Tokens of a text.
        file: Where the sparsities are kept that were found.
    """

    model: str
    speedup: float
    length: int
    file: Path

    def __post_init__(self) -> None:
        """Checks the values."""
        if not self.speedup > 1:
            raise PlanError(f"speed-up {self.speedup:g} must be above 1")
        if self.length < 1:
            raise PlanError(f"length {self.length} must be a whole number of tokens >= 1")

    def search_sparsity(self, learner: Learner) -> float:
        """The sparsity that the search phase aims at: what one radius for all heads would need.

        Raises:
            PlanError: No radius is that fast; the message names the highest speed-up.
        """
        from sparseattn.degrees.methods.fixed import SAMPLE, UniformMethod
        from sparseattn.degrees.texts import Texts

        def plan_at(sparsity: float) -> Plan:
            method = UniformMethod(sparsity, learner.settings.globals)
            return method.plan(learner.model, learner.data, learner.collator, learner.tokenizer)

        if "search" not in self.found:
            settings = replace(learner.settings, over=("neighbor",), off=False)
            texts = Texts(learner.model, learner.data, learner.collator, SAMPLE)
            highest = settings.costs(texts, learner.tokenizer).highest
            self.found["search"] = self._lowest(plan_at, 0.01, int(1000 * highest) / 1000 - 0.001)
        return self.found["search"]

    def plan_sparsity(self, learner: Learner) -> float:
        """The lowest sparsity at which the degrees that were found make a plan that is fast enough.

        Raises:
            PlanError: None does.
        """
        low, high = max(0.01, learner.costs.lowest), learner.costs.highest
        if "plan" not in self.found:
            self.found["plan"] = self._lowest(lambda s: learner.discretize(s).plan, low, high)
            self.save()
        return self.found["plan"]

    def save(self) -> None:
        """Keeps what was found, for a job that goes on after it was stopped."""
        write_whole(self.file, json.dumps(self.found))

    def predict(self, plan: Plan) -> float:
        """The predicted speed-up of a plan."""
        return self._predictor.with_plan(plan).at(self.length).speedup

    @cached_property
    def _predictor(self) -> Predictor:
        from sparseattn.bench.models import load
        from sparseattn.bench.predict import Predictor
        from sparseattn.plan import Plan

        return Predictor(load(self.model, self.length, trains=False), Plan.of("self()"))

    def describe(self, plan: Plan) -> str:
        """What is predicted for the plan that was learned, in a line."""
        return (
            f"predicted speed-up of the plan at {self.length:,} tokens: {self.predict(plan):.2f} "
            f"(target {self.speedup:g}; inference, one text a batch, on this machine); the search "
            f"phase aimed at sparsity {self.found['search']:.3f}, the plan has "
            f"{self.found['plan']:.3f} on the texts of the budget"
        )

    @cached_property
    def found(self) -> dict[str, float]:
        """The sparsities, by what they are for: `search` and `plan`."""
        known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        return {name: float(value) for name, value in known.items()}

    def _lowest(self, plan_at: Callable[[float], Plan], low: float, high: float) -> float:
        """The lowest sparsity whose plan is fast enough; speed rises with sparsity."""
        fastest = self.predict(plan_at(high))
        if fastest < self.speedup:
            raise PlanError(
                f"no plan makes {self.model} {self.speedup:g} times as fast at {self.length:,} "
                f"tokens on this machine: the highest speed-up is {fastest:.2f}"
            )
        while high - low > _CLOSE:
            middle = (low + high) / 2
            if self.predict(plan_at(middle)) >= self.speedup:
                high = middle
            else:
                low = middle
        return high
