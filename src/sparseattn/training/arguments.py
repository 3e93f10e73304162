"""A training's specification in the words of `transformers.TrainingArguments`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from sparseattn.errors import StudyError
from sparseattn.study.processes import processes
from sparseattn.tasks.examples import digest
from sparseattn.tasks.spec import TrainingSpec

__all__ = ["arguments", "seed_of"]

#: Points of the loss curve that are kept.
_POINTS = 50


def arguments(spec: TrainingSpec, folder: Path, examples: int, seed: int) -> TrainingArguments:
    """Arguments for a training on this machine.

    Args:
        spec: How to train.
        folder: Where checkpoints go.
        examples: How many there are to train on.
        seed: Decides the order of the data, and dropout.

    Raises:
        StudyError: This machine cannot train like this.
    """
    if spec.precision == "fp16" and not torch.cuda.is_available():
        raise StudyError("precision 'fp16' needs a GPU; choose from: fp32, bf16")
    try:
        made = TrainingArguments(
            output_dir=str(folder),
            seed=seed,
            data_seed=seed_of("order", seed),
            remove_unused_columns=False,
            disable_tqdm=True,
            **_optimisation(spec),
            **_machine(spec),
            **_records(spec, examples),
        )
    except (ImportError, ValueError) as error:
        raise StudyError(f"cannot train like this: {str(error).splitlines()[0]}") from None
    # Several GPUs take part as processes, each with its own copy of the plan, or not at all:
    # torch's DataParallel would run threads on one.
    made._n_gpu = min(1, made.n_gpu)
    return made


def seed_of(use: str, seed: int) -> int:
    """A seed for one use of a trial's seed, such as the `order` of the data.

    The samplers add the epoch to it: without the hash, neighbouring seeds would share orders.
    """
    return int(digest(use, seed)[:8], 16) % 2**31


def _optimisation(spec: TrainingSpec) -> dict[str, Any]:
    return {
        "num_train_epochs": spec.epochs or 1.0,
        "max_steps": spec.steps or -1,
        "per_device_train_batch_size": spec.share(processes()),
        "per_device_eval_batch_size": math.ceil(spec.evaluation_batch_size / processes()),
        "gradient_accumulation_steps": spec.gradient_accumulation,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.schedule,
        # A number below 1 is a share of the steps.
        "warmup_steps": spec.warmup,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "train_sampling_strategy": "group_by_length" if spec.length_grouped else "random",
    }


def _machine(spec: TrainingSpec) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    known = TrainingArguments.__dataclass_fields__
    # The older name warns where the newer one is known.
    names = ("activation_checkpointing", "gradient_checkpointing")
    return {
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "bf16": spec.precision == "bf16",
        "fp16": spec.precision == "fp16",
        next(name for name in names if name in known): spec.gradient_checkpointing,
    }


def _records(spec: TrainingSpec, examples: int) -> dict[str, Any]:
    """What is logged, saved and compared on the way."""
    batches = math.ceil(examples / spec.batch_size / spec.gradient_accumulation)
    steps = spec.steps or math.ceil(batches * (spec.epochs or 0))
    early = spec.early_stopping is not None
    save = "no" if spec.checkpoint_steps is None else "steps"
    if early and spec.checkpoint_steps is None:
        save = "epoch"
    return {
        "logging_steps": max(1, round(steps / _POINTS)),
        # A loss that is not a number must show.
        "logging_nan_inf_filter": False,
        "report_to": list(spec.report_to),
        "save_strategy": save,
        "save_steps": spec.checkpoint_steps or 500,
        "save_total_limit": 1,
        "eval_strategy": save if early else "no",
        "eval_steps": spec.checkpoint_steps,
        "load_best_model_at_end": early,
        "restore_callback_states_from_checkpoint": early,
    }
