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
from transformers import TrainingArguments as Arguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from sparseattn.errors import StudyError
from sparseattn.study.trial import Progress, TrialFailed
from sparseattn.tasks.base import Prepared
from sparseattn.tasks.rows import digest
from sparseattn.tasks.spec import TrainingSpec

__all__ = ["Run", "train"]

#: Points of the loss curve that are kept.
_POINTS = 50


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
        raw = self.trainer.predict(prepared.evaluation).predictions
        for part in raw if isinstance(raw, tuple) else (raw,):
            if not np.isfinite(part).all():
                raise TrialFailed("the trained model's outputs are not numbers (NaN or infinite)")
        return raw


def train(
    model: Any,
    prepared: Prepared,
    spec: TrainingSpec,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Run:
    """Fine-tunes a model, from the last checkpoint in a folder if there is one.

    Args:
        model: The model; it is changed in place.
        prepared: The task.
        spec: How to train.
        seed: Decides the order of the data, and dropout.
        folder: Where checkpoints go.
        progress: Told how far the training is.

    Raises:
        TrialFailed: The loss is not a number.
        StudyError: The machine cannot train like this.
    """
    training, held_out = _split(prepared, spec)
    # The sampler adds the epoch to its seed: neighbouring seeds would share their orders.
    order = int(digest("order", seed)[:8], 16) % 2**31
    arguments = _arguments(spec, folder, len(training), seed=seed, data_seed=order)
    callbacks: list[TrainerCallback] = [_Watch(progress), _Order(order)]
    if spec.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(spec.early_stopping))
    # The Trainer takes `**kwargs` in a forward for a promise to scale the loss for accumulated
    # batches. BERT and others do not keep it: their gradients would grow with the accumulation.
    model.accepts_loss_kwargs = False
    try:
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=prepared.collator,
            train_dataset=training,
            eval_dataset=held_out,
            callbacks=callbacks,
        )
    except (ImportError, ValueError) as error:
        raise StudyError(f"cannot train like this: {_first_line(error)}") from None
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    history = [log for log in trainer.state.log_history if "loss" in log or "eval_loss" in log]
    return Run(trainer, trainer.state.global_step, history)


def _split(prepared: Prepared, spec: TrainingSpec) -> tuple[Any, Any]:
    """Holds out training examples for early stopping, all windows of an example together."""
    if spec.early_stopping is None:
        return prepared.train, None
    rows = np.asarray(prepared.train["row"])
    drawn = sorted(set(rows.tolist()), key=lambda row: digest("held out", row))
    count = round(len(drawn) * spec.held_out)
    if not 0 < count < len(drawn):
        raise StudyError(
            f"held_out {spec.held_out} of {len(drawn)} training examples leaves one side empty"
        )
    chosen = np.isin(rows, drawn[:count])
    return (
        prepared.train.select(np.flatnonzero(~chosen)),
        prepared.train.select(np.flatnonzero(chosen)),
    )


def _arguments(spec: TrainingSpec, folder: Path, examples: int, **seeds: int) -> Arguments:
    on_gpu = torch.cuda.is_available()
    if spec.precision == "fp16" and not on_gpu:
        raise StudyError("precision 'fp16' needs a GPU; choose from: fp32, bf16")
    batches = math.ceil(examples / spec.batch_size / spec.gradient_accumulation)
    steps = spec.steps or math.ceil(batches * (spec.epochs or 0))
    checkpoints = "no" if spec.checkpoint_steps is None else "steps"
    early = spec.early_stopping is not None
    every = checkpoints if spec.checkpoint_steps else "epoch"
    named = Arguments.__dataclass_fields__
    recompute = next(
        n for n in ("activation_checkpointing", "gradient_checkpointing") if n in named
    )
    options: dict[str, Any] = {
        **seeds,
        "num_train_epochs": spec.epochs or 1.0,
        "max_steps": spec.steps or -1,
        "lr_scheduler_type": spec.schedule,
        "warmup_steps": spec.warmup,
        "gradient_accumulation_steps": spec.gradient_accumulation,
        recompute: spec.gradient_checkpointing,
        "train_sampling_strategy": "group_by_length" if spec.length_grouped else "random",
        "logging_steps": max(1, round(steps / _POINTS)),
        "save_strategy": every if early else checkpoints,
        "save_steps": spec.checkpoint_steps or 500,
        "eval_strategy": every if early else "no",
        "eval_steps": spec.checkpoint_steps,
        "load_best_model_at_end": early,
        "restore_callback_states_from_checkpoint": early,
    }
    try:
        return Arguments(
            output_dir=str(folder),
            per_device_train_batch_size=spec.batch_size,
            per_device_eval_batch_size=spec.evaluation_batch_size,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            bf16=spec.precision == "bf16",
            fp16=spec.precision == "fp16",
            report_to=list(spec.report_to),
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
            save_total_limit=1,
            disable_tqdm=True,
            # A loss that is not a number must show.
            logging_nan_inf_filter=False,
            **options,
        )
    except (ImportError, ValueError) as error:
        raise StudyError(f"cannot train like this: {_first_line(error)}") from None


class _Watch(TrainerCallback):
    """Tells the progress, and stops a training of which the loss is not a number."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.training = False
        self.predicted = 0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.training = True

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.training = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.progress("train", state.global_step / max(1, state.max_steps))

    def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if not self.training:
            self.predicted += 1
            self.progress("evaluate", self.predicted / len(kwargs["eval_dataloader"]))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        loss = kwargs["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss became {loss} by step {state.global_step}")


class _Order(TrainerCallback):
    """Gives length-grouped batches an order that a resumed training repeats.

    transformers draws that order from the global generator, of which the state at the start of an
    epoch is not saved, and orders evaluation by it too, where predictions must stay in place.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        # The sampler for training exists by now.
        args.train_sampling_strategy = "random"

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        sampler = kwargs["train_dataloader"].batch_sampler
        while not isinstance(sampler, LengthGroupedSampler) and sampler is not None:
            sampler = getattr(sampler, "sampler", None) or getattr(sampler, "batch_sampler", None)
        if sampler is not None:
            sampler.generator = torch.Generator().manual_seed(self.seed + int(state.epoch or 0))


def _last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in a folder; what a killed process left half is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in reversed(found):
        try:
            # The trainer writes this file last.
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            return str(path)
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
