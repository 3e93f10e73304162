"""Phases of learning that go on where they were stopped, each in a folder of its own.

A folder holds the trainer's checkpoints, beside each one what the degrees and their budget were,
and in the end a record that the phase is over.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn
from transformers import Trainer, TrainingArguments

from sparseattn.files import naming_a_full_disk, write_whole
from sparseattn.training.train import last_checkpoint

#: Beside a checkpoint: the degrees and the budget as they were.
BUDGET = "sparseattn_budget.json"

_DONE, _WEIGHTS = "done.json", "model.safetensors"


class Phase:
    """One training of several; `arguments` are a copy for this one.

    Args:
        arguments: How everything is trained. Without a `save_strategy` nothing is kept.
        name: The phase's, and its folder's.
        needs: Files without which a checkpoint is not complete.
    """

    def __init__(self, arguments: TrainingArguments, name: str, needs: Sequence[str] = ()) -> None:
        self.arguments = copy.copy(arguments)
        self.keeps = arguments.save_strategy != "no"
        self.folder, self.needs = Path(str(arguments.output_dir)), tuple(needs)
        if self.keeps:
            self.folder /= name
            self.arguments.output_dir = str(self.folder)

    def done(self, model: nn.Module) -> dict[str, Any] | None:
        """What was recorded at the end of the phase; the model gets its weights of then."""
        path = self.folder / _DONE
        if not self.keeps or not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        load_model(model, self.folder / _WEIGHTS)
        return record

    def train(self, trainer: Trainer) -> None:
        """Trains, from the last complete checkpoint if there is one."""
        if not self.keeps:
            trainer.train()
            return
        checkpoint = last_checkpoint(self.folder)
        while checkpoint and not self._goes_on(Path(checkpoint), trainer.args.max_steps):
            (Path(checkpoint) / "trainer_state.json").unlink()
            checkpoint = last_checkpoint(self.folder)
        with naming_a_full_disk(self.folder):
            trainer.train(resume_from_checkpoint=checkpoint)

    def _goes_on(self, checkpoint: Path, steps: int) -> bool:
        """Whether it has our files, too, and a step is left: the trainer takes one in any case."""
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        left = steps <= 0 or state["global_step"] < steps
        return left and all((checkpoint / name).is_file() for name in self.needs)

    def record(self, trainer: Trainer, values: dict[str, Any]) -> None:
        """Notes that the phase is over; of several processes, the first one writes.

        Args:
            trainer: The phase's trainer.
            values: What `done` is to give back, as plain values.
        """
        if not self.keeps or not trainer.is_world_process_zero():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        assert trainer.model is not None
        with naming_a_full_disk(self.folder):
            save_model(trainer.accelerator.unwrap_model(trainer.model), str(self.folder / _WEIGHTS))
        write_whole(self.folder / _DONE, json.dumps(values))
