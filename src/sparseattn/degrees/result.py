"""What learning degrees gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.diagnostics import Diagnostics
from sparseattn.degrees.measured import told
from sparseattn.degrees.texts import Texts
from sparseattn.plan import Plan

if TYPE_CHECKING:
    from sparseattn.degrees.learner import Learner

__all__ = ["Learned"]

#: Held-out texts that diagnostics are counted on, at most.
_COUNTED = 512

#: How far the soft phase may end from the budget before a user is told.
_GAP = 0.02

#: Ends of the names under which an evaluation tells how long it took.
_TIMING = ("runtime", "per_second", "epoch", "preparation_time")


@dataclass(eq=False)
class Learned:
    """A model with degrees that were learned for a sparsity.

    Attributes:
        plan: The degrees as a plan, global tokens included.
        model: The trained model, which carries the plan.
        stated: The sparsity that was asked for.
        sparsity: That of the plan on held-out texts (on training texts, if none were given).
        window_sparsity: That of its windows alone, without the rows and columns of global tokens.
        by_length: The sparsity of texts of each length.
        over: What these three were counted over, in words.
        menu: The radii that were chosen from.
        chances: Of each radius at the end of the soft phase.
            Shape: [learned layers, heads or 1, entries].
        layers: The layers that were learned.
        history: A record a soft step; see `sparseattn.degrees.search.Budget`.
        metrics: Evaluations: `soft`, `hardened` (before the last fine-tune) and `final`.
        diagnostics: Degrees in the terms of LDPC codes, and how far information travels.
    """

    plan: Plan
    model: Any
    stated: float
    sparsity: float
    window_sparsity: float
    by_length: dict[str, float]
    over: str
    menu: Candidates
    chances: Tensor
    layers: list[int]
    history: list[dict[str, float]]
    metrics: dict[str, dict[str, float]]
    diagnostics: Diagnostics

    @classmethod
    def of(cls, learner: Learner, sparsity: float, plan: Plan, windows: Plan) -> Learned:
        """Counts a plan on held-out texts and puts the result together.

        Args:
            learner: After its last phase.
            sparsity: What was asked for.
            plan: What it hardened to.
            windows: The same without global tokens.
        """
        held_out = learner.trainer.get("eval_dataset")
        data = learner.data if held_out is None else held_out
        texts = Texts(learner.model, data, learner.collator, learner.settings.sample)
        tokens = texts.tokens(plan, learner.tokenizer)
        of = (tokens, learner.costs.heads, learner.costs.windows)
        found = MeasuredSparsity.of(plan, *of)
        return cls(
            plan=plan,
            model=learner.model,
            stated=sparsity,
            sparsity=found.sparsity,
            window_sparsity=MeasuredSparsity.of(windows, *of).sparsity,
            by_length=found.by_length(),
            over=f"{len(found.lengths)} {'training' if held_out is None else 'held-out'} texts",
            menu=learner.menu,
            chances=learner.degrees.chances().detach().cpu(),
            layers=learner.costs.learned,
            history=list(learner.history),
            metrics=dict(learner.metrics),
            diagnostics=Diagnostics.of(plan, tokens, *of[1:]),
        )

    @property
    def expected(self) -> float:
        """The sparsity that the distributions came to expect by the end of the soft phase.

        Over the training texts that budgets are counted on. Hardening meets the budget in any case;
        where this is far from it, it was the budget that chose the degrees and not learning.
        """
        return 1 - self.history[-1]["density"]

    @property
    def warning(self) -> str:
        """What a user should know before trusting the degrees; empty if there is nothing."""
        if abs(self.expected - self.stated) <= _GAP:
            return ""
        return (
            f"warning: after {len(self.history)} soft steps the distributions expect a sparsity of "
            f"{self.expected:.3f}, not {self.stated:.3f}: the degrees have not settled, and what "
            "the plan keeps is not what learning prefers; train longer"
        )

    def scores(self, phase: str) -> dict[str, float]:
        """An evaluation without what it says of its own speed.

        Args:
            phase: `soft`, `hardened` or `final`.

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
            "stated": self.stated,
            "sparsity": self.sparsity,
            "window_sparsity": self.window_sparsity,
            "sparsity_by_length": self.by_length,
            "counted_over": self.over,
            "expected_sparsity": self.expected,
            "warning": self.warning,
            "plan": self.plan.to_json(),
            "menu": {"entries": list(self.menu.entries), "elastic": self.menu.elastic},
            "layers": self.layers,
            "chances": self.chances.tolist(),
            "metrics": self.metrics,
            "diagnostics": self.diagnostics.to_json(),
            "history": self.history,
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Writes plan, model, history and a picture.

        Args:
            folder: Made if need be.

        Returns:
            What was written: `plan.json`, `model/` (read it with `sparseattn.load`),
            `learned.json`, `degrees.png`.
        """
        from sparseattn.degrees.picture import draw

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / name for name in ("plan.json", "model", "learned.json", "degrees.png")]
        self.plan.save(paths[0])
        self.model.save_pretrained(paths[1])
        paths[2].write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        draw(self).savefig(paths[3], dpi=150)
        return paths

    def __str__(self) -> str:
        """What was asked for, what came out, and how well the model did."""
        lines = told(self.stated, self.sparsity, self.window_sparsity, self.by_length, self.over)
        for name in self.metrics:
            scores = ", ".join(f"{key} {value:.4g}" for key, value in self.scores(name).items())
            if scores:
                lines.append(f"{name}: {scores}")
        return "\n".join([*lines, *([self.warning] if self.warning else []), str(self.plan)])
