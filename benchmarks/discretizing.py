"""From distributions to a plan: what a connection is worth, and whether the search draws masks.

Question, arms and data were written before the first run. MiniLM on MRPC, near and similar keys,
searched on 70% of the training pairs and measured on the rest, under the plan and before any
training with it. Two searches a seed: with soft masks throughout, and with masks that are drawn
in its last fifth (straight-through: the gradient is that of the soft mask). Three values of a cell
(the pairs that the same degrees keep) for the knapsack:

- *chance*: the chance that its pairs are allowed, times their number; what the library does
- *gradient*: by how much the loss rises at first order when its attention is taken away
- *Fisher*: half the mean square of that over examples

Results go to benchmarks/results/discretizing.json and .md; what is there is not run again.

    SPARSEATTN_DATA=folder python benchmarks/discretizing.py [--sparsity 0.9 0.93] [--seeds 3]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import TrainerCallback

from shared import Record, data_folder, options, parse
from sparseattn.degrees.discretize import discretize
from sparseattn.degrees.distribution import Degrees, log_allowed
from sparseattn.degrees.learn import Learner, steps_of
from sparseattn.degrees.search import searching
from sparseattn.degrees.settings import Settings
from sparseattn.models.load import load_part, quiet
from sparseattn.models.names import DEFAULT, resolve
from sparseattn.tasks.prepare import Prepared, prepare
from sparseattn.tasks.ready import ready
from sparseattn.tasks.spec import TaskSpec
from sparseattn.training.arguments import arguments
from sparseattn.training.spec import TrainingSpec
from sparseattn.training.train import Watch, headline

VALUES = ("chance", "gradient", "Fisher")
COLUMNS = ("sparsity, seed", "search", "after it", *VALUES)
EPOCHS, RATE = 4, 1e-4
#: Training pairs that gradients are averaged over, one at a time.
EXAMPLES = 256
#: The part of a search that draws its masks.
HARD = 0.2
_NEVER = -1e30


class Drawn(Degrees):
    """Degrees whose masks are drawn, or have a gate for each cell.

    Attributes:
        hard: Whether masks are drawn.
        gates: Added to the log of each cell's chance. Shape: [layers, heads, cells].
    """

    hard = False
    gates: Tensor | None = None

    def tables(self) -> list[Tensor]:
        """As those of `Degrees`, of what was drawn, or with gates."""
        tables = super().tables()
        if self.hard:
            drawn = [_draw(each) for each in self.log_chances()]
            hard = [log_allowed([each[index] for each in drawn]) for index in range(len(tables))]
            tables = [
                soft + (mask - soft).detach() for soft, mask in zip(tables, hard, strict=True)
            ]
        if self.gates is not None:
            tables = [table + gate for table, gate in zip(tables, self.gates, strict=True)]
        return tables


def _draw(log_chances: Tensor) -> Tensor:
    """The log of a draw for each layer and head: 0 for what was drawn."""
    drawn = torch.distributions.Categorical(logits=log_chances).sample()
    chosen = one_hot(drawn, log_chances.shape[-1]).bool()
    return torch.full_like(log_chances, _NEVER).masked_fill(chosen, 0.0)


class Harden(TrainerCallback):
    """Draws masks from some step on."""

    def __init__(self, degrees: Drawn, start: float) -> None:
        self.degrees, self.start = degrees, start

    def on_step_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Counts steps from 0."""
        self.degrees.hard = state.global_step >= self.start

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """What is measured is under soft masks."""
        self.degrees.hard = False


@contextmanager
def learner_of(prepared: Prepared, tokenizer: Any, seed: int) -> Iterator[Learner]:
    """A learner as a study has it, with degrees of this file."""
    spec = TrainingSpec(epochs=EPOCHS, learning_rate=RATE, precision="bf16", length_grouped=True)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        how = arguments(spec, Path(folder), len(prepared.train), seed)
        how.save_strategy, how.report_to = "no", []
        more = {
            "callbacks": [Watch(lambda *_: None, how.data_seed)],
            "eval_dataset": prepared.evaluation,
            "compute_metrics": lambda raw: headline(prepared, raw.predictions),
            "data_collator": prepared.collator,
        }
        model = prepared.build_model(resolve(DEFAULT), seed)
        learner = Learner(model, prepared.train, how, more, Settings(), tokenizer)
        old = learner.degrees
        learner.degrees = Drawn(old.candidates, old.heads, old.windows)
        yield learner


def gradients(learner: Learner) -> tuple[Tensor, Tensor]:
    """What each cell is worth by gradient and by Fisher. Shape: [layers, heads, cells] each."""
    degrees, costs = learner.degrees, learner.costs
    shape = (*degrees.theta.shape[:2], costs.candidates.cell_count)
    degrees.gates = torch.zeros(shape, requires_grad=True)
    found = []
    learner.model.eval()
    with searching(learner.model, degrees, learner.tokenizer):
        every = max(1, len(learner.data) // EXAMPLES)
        for row in range(0, every * EXAMPLES, every):
            batch = learner.collator(learner.data.__getitems__([row]))
            loss = learner.model(**batch)["loss"]
            (slope,) = torch.autograd.grad(loss, degrees.gates)
            found.append(slope[..., costs.numbers])
    degrees.gates = None
    slopes = torch.stack(found).double()
    return (-slopes.mean(dim=0)).clamp(min=0), slopes.square().mean(dim=0) / 2


def run(folder: Path, sparsity: float, seed: int, hard: bool) -> dict[str, Any]:
    """A search, and the accuracy under the plan of each value."""
    tokenizer = load_part(DEFAULT, "AutoTokenizer")
    data = {"files": {"train": str(folder / "mrpc" / "train.jsonl")}, "hold_out": 0.3}
    task = TaskSpec(**ready("mrpc", {"data": data, "max_length": 128}))
    prepared = prepare(task, tokenizer, Settings().needs)
    with learner_of(prepared, tokenizer, seed) as learner:
        steps = learner.search_steps(steps_of(learner.arguments, len(learner.data)))
        if hard:
            start = steps * (1 - HARD)
            learner.trainer["callbacks"].append(Harden(learner.degrees, start))
        learner.search(sparsity, steps)
        with torch.no_grad():
            allowed = learner.costs.allowed(learner.degrees.log_chances()).cpu().double()
        worth = (allowed * learner.costs.shares[:, None, :], *gradients(learner))
        plans = [discretize(values, learner.costs, sparsity).plan for values in worth]
        name = f"eval_{prepared.headline}"
        found = {"search": 100 * learner.metrics["search"][name]}
        for value, plan in zip(VALUES, plans, strict=True):
            learner.evaluate_plan(plan)
            found[value] = 100 * learner.metrics["discretized"][name]
    cells = [f"{sparsity:g}, {seed}", "drawn" if hard else "soft"]
    cells += [f"{found[each]:.1f}" for each in ("search", *VALUES)]
    return {"rows": [cells], "found": found}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.9, 0.93])
    parser.add_argument("--seeds", type=int, default=3)
    args = parse(parser)
    folder = data_folder(parser)
    setting = "MiniLM, MRPC, 1,100 held-out training pairs, accuracy in percent"
    record = Record("discretizing", COLUMNS, setting, args)
    for seed in range(args.seeds):
        for sparsity in args.sparsity:
            for hard in (False, True):
                name = f"{sparsity:g}, seed {seed}, {'drawn' if hard else 'soft'}"
                record.part(name, partial(run, folder, sparsity, seed, hard))
    record.done()


if __name__ == "__main__":
    main()
