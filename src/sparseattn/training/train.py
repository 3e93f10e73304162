"""Fine-tuning with the stock `transformers.Trainer`: its arguments and its callbacks."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from sparseattn.errors import StudyError, TrialFailed, first_line
from sparseattn.tasks.examples import digest
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.arguments import arguments, seed_of
from sparseattn.training.spec import Progress, TrainingSpec


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training.

    Attributes:
        trainer: The trainer, with the trained model.
        steps: Optimiser steps.
        history: What was logged: `step`, `epoch`, `loss`, `learning_rate`, `grad_norm`, and
            `eval_loss` on held-out examples.
    """

    trainer: Trainer
    steps: int
    history: list[dict[str, float]]

    def predict(self, prepared: Prepared) -> Any:
        """The model's logits for `prepared.evaluation`.

        Raises:
            TrialFailed: One is not a number.
        """
        logits = _logits(prepared, self.trainer.predict(prepared.evaluation).predictions)
        parts = logits if isinstance(logits, tuple) else (logits,)
        if not all(np.isfinite(part).all() for part in parts):
            raise TrialFailed("the trained model's outputs are not numbers (NaN or infinite)")
        return logits


def _logits(prepared: Prepared, raw: Any) -> Any:
    """Predictions without what some models return beside their logits."""
    parts = (raw if isinstance(raw, tuple) else (raw,))[: prepared.kind.outputs]
    return parts if len(parts) > 1 else parts[0]


def headline(prepared: Prepared, raw: Any) -> dict[str, float]:
    """The headline metric of raw predictions for `prepared.evaluation`, by its name."""
    scores = prepared.score(_logits(prepared, raw))
    return {prepared.headline: scores.metrics[prepared.headline]}


def train(
    model: Any,
    prepared: Prepared,
    spec: TrainingSpec,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Run:
    """Fine-tunes a model in place, from the last checkpoint in a folder if there is one.

    Raises:
        TrialFailed: The loss is not a number.
        StudyError: The machine cannot train like this.
    """
    training, held_out = split(prepared, spec)
    callbacks: list[TrainerCallback] = [Watch(progress, seed_of("order", seed))]
    if spec.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(spec.early_stopping))
    # The Trainer takes `**kwargs` in a forward for a promise to scale the loss for accumulated
    # batches. BERT and others do not keep it: their gradients would grow with the accumulation.
    model.accepts_loss_kwargs = False
    made = arguments(spec, folder, len(training), seed)
    try:
        trainer = Trainer(
            model=model,
            args=made,
            data_collator=prepared.collator,
            train_dataset=training,
            eval_dataset=held_out,
            callbacks=callbacks,
        )
    except (ImportError, ValueError) as error:
        raise StudyError(f"cannot train like this: {first_line(error)}") from None
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    history = [log for log in trainer.state.log_history if "loss" in log or "eval_loss" in log]
    return Run(trainer, trainer.state.global_step, history)


def split(prepared: Prepared, spec: TrainingSpec) -> tuple[Any, Any]:
    """Inputs to train on, and those held out for early stopping (None without it).

    All windows of an example go to the same side.

    Raises:
        StudyError: One side would be empty.
    """
    if spec.early_stopping is None:
        return prepared.train, None
    rows = np.asarray(prepared.train["row"])
    drawn = sorted(set(rows.tolist()), key=lambda row: digest("held out", row))
    chosen = np.isin(rows, drawn[: spec.held_out_count(len(drawn))])
    return (
        prepared.train.select(np.flatnonzero(~chosen)),
        prepared.train.select(np.flatnonzero(chosen)),
    )


class Watch(TrainerCallback):
    """Reports progress, stops where the loss is not a number, and keeps the order of batches.

    transformers draws the order of length-grouped batches from the global generator, of which the
    state at the start of an epoch is not saved: a resumed training would not repeat it. It orders
    evaluation by it too, where predictions must stay in place.

    Args:
        progress: Called as the training goes on.
        order: Seed of the order of length-grouped batches.
    """

    def __init__(self, progress: Progress, order: int) -> None:
        self.progress, self.order = progress, order
        self.training, self.predicted = False, 0

    def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
        """The sampler for training exists by now; those for evaluation do not."""
        self.training = True
        args.train_sampling_strategy = "random"

    def on_epoch_begin(self, args: Any, state: Any, *_: Any, **kwargs: Any) -> None:
        """Seeds the order of an epoch."""
        sampler = kwargs["train_dataloader"].batch_sampler
        while not isinstance(sampler, LengthGroupedSampler) and sampler is not None:
            sampler = getattr(sampler, "sampler", None) or getattr(sampler, "batch_sampler", None)
        if sampler is not None:
            sampler.batch_size = args.train_batch_size * args.gradient_accumulation_steps
            sampler.generator = torch.Generator().manual_seed(self.order + int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Reports an optimiser step."""
        self.progress("train", state.global_step / max(1, state.max_steps))

    def on_log(self, args: Any, state: Any, *_: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Looks at the loss."""
        loss = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss became {loss} by step {state.global_step}")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """What is predicted from now on is the evaluation."""
        self.training = False

    def on_prediction_step(self, *_: Any, **kwargs: Any) -> None:
        """Reports a batch of the evaluation, not of held-out examples."""
        if not self.training:
            self.predicted += 1
            self.progress("evaluate", self.predicted / len(kwargs["eval_dataloader"]))


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in a folder; what a killed process left half is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in reversed(found):
        try:  # the trainer writes this file last
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            (path / "rng_state.pth").stat()
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            return str(path)
    return None
