"""A speed-up as the target of `sparseattn learn`: the sparsity that is predicted to give it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseattn.errors import PlanError
from sparseattn.files import write_whole

if TYPE_CHECKING:
    from sparseattn.bench.models import BenchModel
    from sparseattn.bench.predict import Predictor
    from sparseattn.degrees.learn import Learner
    from sparseattn.degrees.settings import Settings
    from sparseattn.plan import Plan

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
        if not self.speedup > 1:
            raise PlanError(f"speed-up {self.speedup:g} must be above 1")
        if self.length < 1:
            raise PlanError(f"length {self.length} must be a whole number of tokens >= 1")

    def check(self, settings: Settings) -> None:
        """Raises a PlanError for rankings whose plans' speed cannot be predicted."""
        from sparseattn.annotations import PARSED

        if settings.needs & PARSED:
            raise PlanError(
                f"the speed of a plan over {', '.join(settings.over)} cannot be predicted without "
                "a parse: leave out the rankings that need one, or give a sparsity"
            )

    def search_sparsity(self, learner: Learner) -> float:
        """The sparsity that a search aims at: that of the widest radius that is fast enough.

        One radius for all heads that are learned, with the global tokens.

        Raises:
            PlanError: Not even the least that the candidates leave is that fast; the message names
                the highest speed-up.
        """
        from sparseattn.counting import MeasuredSparsity
        from sparseattn.degrees.methods.fixed import UniformMethod
        from sparseattn.plan import Plan

        if "search" in self.found:
            return self.found["search"]
        costs = learner.costs
        self._check_fastest(learner.discretize(costs.highest).plan, "no plan")

        def plan_of(radius: int) -> Plan:
            pattern = UniformMethod(0.5, learner.settings.globals).step(radius)
            return Plan.of(dict.fromkeys(costs.learned, pattern))

        radii = range(1, int(costs.lengths.max()))
        widest = bisect_left(radii, True, key=lambda r: self.predict(plan_of(r)) < self.speedup)
        plan = plan_of(widest)  # that many radii from 1 on are fast enough
        tokens = learner.texts.tokens(plan, learner.tokenizer)
        measured = MeasuredSparsity.of(plan, tokens, costs.heads, costs.windows)
        self.found["search"] = min(max(measured.sparsity, costs.lowest), costs.highest)
        return self.found["search"]

    def plan_sparsity(self, learner: Learner) -> float:
        """The lowest sparsity at which the degrees that were found make a plan that is fast enough.

        Raises:
            PlanError: None does.
        """
        if "plan" not in self.found:
            costs = learner.costs
            self.found["plan"] = self._lowest(
                lambda sparsity: learner.discretize(sparsity).plan, costs.lowest, costs.highest
            )
            self.save()
        return self.found["plan"]

    def save(self) -> None:
        """Keeps what was found, for a job that goes on after it was stopped."""
        write_whole(self.file, json.dumps(self.found))

    def predict(self, plan: Plan) -> float:
        """The predicted speed-up of a plan."""
        return self._predictor.with_plan(plan).at(self.length).speedup

    def report(self, plan: Plan) -> dict[str, Any]:
        """What is predicted for the plan that was learned, as plain values."""
        from sparseattn.counting import MeasuredSparsity

        subject = self._subject
        tokens = subject.tokens(subject.batch(1, self.length))
        measured = MeasuredSparsity.of(plan, [tokens], [subject.heads] * subject.layers)
        return {
            "target_speedup": self.speedup,
            "predicted_speedup": self.predict(plan),
            "length": self.length,
            "sparsity_at_length": measured.sparsity,
            "search_sparsity": self.found["search"],
            "plan_sparsity": self.found["plan"],
        }

    @cached_property
    def _subject(self) -> BenchModel:
        from sparseattn.bench.models import load

        return load(self.model, self.length, trains=False)

    @cached_property
    def _predictor(self) -> Predictor:
        from sparseattn.bench.predict import Predictor
        from sparseattn.plan import Plan

        return Predictor(self._subject, Plan.of("self()"))

    @cached_property
    def found(self) -> dict[str, float]:
        """The sparsities, by what they are for: `search` and `plan`."""
        known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        return {name: float(value) for name, value in known.items()}

    def _check_fastest(self, plan: Plan, who: str) -> None:
        """Raises a PlanError that names the highest speed-up, that of `plan`, if it is too low."""
        fastest = self.predict(plan)
        if fastest < self.speedup:
            raise PlanError(
                f"{who} makes {self.model} {self.speedup:g} times as fast at {self.length:,} "
                f"tokens on this machine: the highest speed-up is {fastest:.2f}"
            )

    def _lowest(self, plan_at: Callable[[float], Plan], low: float, high: float) -> float:
        """The lowest sparsity whose plan is fast enough; speed rises with sparsity."""
        self._check_fastest(plan_at(high), "no plan of these degrees")
        while high - low > _CLOSE:
            middle = (low + high) / 2
            if self.predict(plan_at(middle)) >= self.speedup:
                high = middle
            else:
                low = middle
        return high


def in_words(report: dict[str, Any]) -> str:
    """A `report` in words."""
    return (
        f"predicted speed-up at {report['length']:,} tokens: {report['predicted_speedup']:.2f} "
        f"(target {report['target_speedup']:g}; inference, one text a batch, on this machine), "
        f"with sparsity {report['sparsity_at_length']:.3f} there; on the training texts the search "
        f"aimed at {report['search_sparsity']:.3f}, and the plan has {report['plan_sparsity']:.3f}"
    )
