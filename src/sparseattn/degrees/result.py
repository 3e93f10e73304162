"""What learning degrees gives."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.discretize import Discretized
from sparseattn.degrees.picture import degrees_drawing
from sparseattn.drawing import Drawing
from sparseattn.files import naming_a_full_disk, write_whole
from sparseattn.models.card import write_card
from sparseattn.plan import Plan
from sparseattn.words import counted

#: Points of sparsity by which a budget may be missed before a user is told.
_GAP = 0.02

#: Share of a guess's loss above which a search has not learned its task.
_GUESSING = 0.95

#: Ends of the names under which an evaluation tells how long it took.
_TIMING = ("runtime", "per_second", "epoch", "preparation_time")

#: What the evaluations are called for a user.
_PHASES = {
    "dense": "dense baseline",
    "search": "after the search phase, masks not yet discrete",
    "discretized": "discretized, before the fine-tune",
    "final": "final, after the fine-tune",
}


@dataclass(eq=False)
class Learned:
    """A model with degrees that were learned for a sparsity.

    Attributes:
        plan: The degrees as a plan, global tokens included.
        model: The trained model, which carries the plan.
        target_sparsity: The sparsity to learn for.
        discretized: What each head has, the candidates, and the texts that the budget was counted
            over.
        measured: What the plan allows on the texts of `split`.
        split: The texts that it was measured on: `evaluation`, or `training` without any.
        budget_split: The texts that the target was met on: `train` or `evaluation`.
        chances: Of each candidate at the end of the search phase, by the name of its ranking.
            Shape: [learned layers, heads or 1, entries] each.
        history: A record a step of the search phase; see `sparseattn.degrees.search.Budget`.
        metrics: Evaluations: `search`, `discretized` (before the fine-tune), `final`, and `dense`
            of a baseline.
    """

    plan: Plan
    model: Any
    target_sparsity: float
    discretized: Discretized
    measured: MeasuredSparsity
    split: str
    budget_split: str
    chances: dict[str, Tensor]
    history: list[dict[str, float]]
    metrics: dict[str, dict[str, float]]

    @property
    def measured_sparsity(self) -> float:
        """The sparsity of the plan on the texts of `split`."""
        return self.measured.sparsity

    @property
    def costs(self) -> Costs:
        """What the candidates cost on the texts of the budget."""
        return self.discretized.costs

    @property
    def expected_sparsity(self) -> float:
        """The sparsity that the distributions came to expect by the end of the search phase.

        Over the texts that the budget is counted on. The plan meets the budget in any case; where
        this is far from it, it was the budget that chose the degrees and not learning.
        """
        return 1 - self.history[-1]["density"]

    @property
    def warnings(self) -> list[str]:
        """What a user should know before trusting the degrees, a sentence each."""
        last, target, messages = self.history[-1], self.target_sparsity, []
        if abs(last["density"] - last["target"]) > _GAP:
            messages.append(
                f"after {len(self.history)} steps of the search phase the distributions expect a "
                f"sparsity of {self.expected_sparsity:.3f}, where they aimed at "
                f"{1 - last['target']:.3f}: the degrees have not settled, and the budget chose "
                "them rather than the training; train longer"
            )
        loss, guess = self.scores("search").get("loss", 0.0), self._loss_of_a_guess()
        if loss > _GUESSING * guess:
            messages.append(
                f"after the search phase the loss is {loss:.3f}, and that of a guess {guess:.3f}: "
                "the degrees were chosen before the task was learned; train longer, or start from "
                "a model that was fine-tuned densely"
            )
        if abs(self.measured_sparsity - target) > _GAP:
            messages.append(self._missed_target())
        return messages

    def _loss_of_a_guess(self) -> float:
        """The cross-entropy of a guess among the classes of a text; infinite for other tasks."""
        if not type(self.model).__name__.endswith("ForSequenceClassification"):
            return math.inf
        config = self.model.config
        kind = config.problem_type or "single_label_classification"
        if config.num_labels < 2 or kind != "single_label_classification":
            return math.inf
        return math.log(config.num_labels)

    def _missed_target(self) -> str:
        missed = (
            f"measured sparsity {self.measured_sparsity:.3f} is not the target "
            f"{self.target_sparsity:.3f}"
        )
        if self.split == "evaluation" and self.budget_split == "train":
            lengths = self.costs.lengths, self.measured.lengths
            train, here = (float(each.double().mean()) for each in lengths)
            return (
                f"{missed}: the target was met on the training texts, of {train:.1f} tokens on "
                f"average, and the evaluation texts have {here:.1f}; --budget-split evaluation "
                "(budget_split='evaluation' in Python) meets it on the evaluation texts, of which "
                "it looks at the lengths alone"
            )
        return f"{missed}: no choice among these candidates comes nearer; give more of them"

    def scores(self, phase: str) -> dict[str, float]:
        """An evaluation without what it says of its own speed.

        Args:
            phase: `dense`, `search`, `discretized` or `final`.

        Returns:
            Loss and metrics by name; empty where it was not measured.
        """
        return {
            name.removeprefix("eval_"): value
            for name, value in self.metrics.get(phase, {}).items()
            if not name.endswith(_TIMING)
        }

    def to_json(self) -> dict[str, Any]:
        """Everything but the model, as plain values."""
        return {
            "target_sparsity": self.target_sparsity,
            "measured_sparsity": self.measured_sparsity,
            "sparsity_by_length": self.measured.by_length(),
            "measured_on": counted(len(self.measured.lengths), f"{self.split} text"),
            "budget_split": self.budget_split,
            "expected_sparsity": self.expected_sparsity,
            "warnings": self.warnings,
            "plan": self.plan.to_json(),
            "over": [str(ranking) for ranking in self.costs.candidates.rankings],
            "share_of_kept_pairs": self.discretized.shares,
            "layers": self.costs.learned,
            "chances": {name: chances.tolist() for name, chances in self.chances.items()},
            "metrics": self.metrics,
            "history": self.history,
        }

    @property
    def drawing(self) -> Drawing:
        """The degrees of each head, and sparsity and loss over the steps of the search."""
        return degrees_drawing(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes plan, model, history and a picture.

        Args:
            folder: Made if need be.

        Returns:
            What was written: `plan.json`, `model/` (read it with `sparseattn.load`),
            `learned.json`, `degrees.png`.

        Raises:
            MissingExtraError: matplotlib is not installed.
            OSError: The folder cannot be written to.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / name for name in ("plan.json", "model", "learned.json", "degrees.png")]
        self.plan.save(paths[0])
        with naming_a_full_disk(place):
            self.model.save_pretrained(paths[1])
        write_card(paths[1], self.plan, self.model.name_or_path, str(self).splitlines())
        write_whole(paths[2], json.dumps(self.to_json(), indent=1) + "\n")
        self.drawing.save(paths[3])
        return paths

    def __str__(self) -> str:
        """The sparsity, how well the model does, what to be careful about, and the plan."""
        texts = counted(len(self.measured.lengths), f"{self.split} text")
        lines = sparsity_lines(self.target_sparsity, self.measured, texts)
        lines += kind_lines(self.discretized)
        for phase, name in _PHASES.items():
            if scores := self.scores(phase):
                values = ", ".join(f"{key} {value:.4g}" for key, value in scores.items())
                lines.append(f"{name}: {values}")
        lines += [f"warning: {message}" for message in self.warnings]
        return "\n".join([*lines, str(self.plan)])


def sparsity_lines(target: float, measured: MeasuredSparsity, texts: str) -> list[str]:
    """Says what a plan came to, measured on `texts`, such as "64 evaluation texts"."""
    buckets = ", ".join(f"{size}: {share:.3f}" for size, share in measured.by_length().items())
    return [
        f"target sparsity {target:.3f}, measured sparsity {measured.sparsity:.3f} on {texts}",
        f"sparsity by length of the text in tokens: {buckets}",
    ]


def kind_lines(found: Discretized) -> list[str]:
    """Says which heads use which kind of connection, and what share of the budget it takes."""
    shares, costs = found.shares, found.costs
    kept = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    texts = counted(len(costs.lengths), "text")
    lines = [
        f"of the pairs that are kept, over {texts} of the budget: {kept} (a pair of several kinds "
        "counts for the first of them)"
    ]
    names = costs.candidates.names
    rows = [["heads of layer", *map(str, costs.learned), "all"]]
    uses = found.chosen > 0
    columns = {name: uses[:, :, index] for index, name in enumerate(names)}
    columns[found.nothing_else] = ~uses.any(dim=-1)
    for name, mask in columns.items():
        counts = mask.sum(dim=1).tolist()
        rows.append([name, *map(str, counts), f"{sum(counts)} of {mask.numel()}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return lines


def frontier_rows(results: Sequence[Learned]) -> list[dict[str, float]]:
    """Sparsities and the scores of each phase, a row a target, in columns such as `final_accuracy`.

    The loss where there is no metric; NaN for what was not measured.
    """
    names = [name for name in results[0].scores("final") if name != "loss"] or ["loss"]
    phases = [phase for phase in _PHASES if phase != "dense" or results[0].scores("dense")]
    return [
        {
            "target_sparsity": result.target_sparsity,
            "measured_sparsity": result.measured_sparsity,
        }
        | {
            f"{phase}_{name}": result.scores(phase).get(name, float("nan"))
            for name in names
            for phase in phases
        }
        for result in results
    ]
