"""A training's specification in the words of `transformers.TrainingArguments`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from sparseattn.errors import StudyError, first_line
from sparseattn.tasks.examples import digest
from sparseattn.training.environment import check_alone, check_precision
from sparseattn.training.spec import TrainingSpec

#: Points of the loss curve that are kept.
_POINTS = 50


def arguments(spec: TrainingSpec, folder: Path, examples: int, seed: int) -> TrainingArguments:
    """Arguments for a training on this machine; checkpoints go into `folder`.

    Raises:
        StudyError: This machine or this process cannot train like this.
    """
    check_alone()
    on_gpu = torch.cuda.is_available()
    check_precision(spec.precision, "precision ")
    early = spec.early_stopping is not None
    save = "steps" if spec.checkpoint_steps else "epoch" if early else "no"
    # The older name warns where the newer one is known.
    newer = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if newer else "gradient_checkpointing"
    recompute: dict[str, Any] = {name: spec.gradient_checkpointing}
    try:
        made = TrainingArguments(
            output_dir=str(folder),
            seed=seed,
            data_seed=seed_of("order", seed),
            remove_unused_columns=False,
            disable_tqdm=True,
            num_train_epochs=spec.epochs or 1.0,
            max_steps=spec.steps or -1,
            per_device_train_batch_size=spec.batch_size,
            per_device_eval_batch_size=spec.evaluation_batch_size,
            gradient_accumulation_steps=spec.gradient_accumulation,
            learning_rate=spec.learning_rate,
            lr_scheduler_type=spec.schedule,
            warmup_steps=spec.warmup,  # below 1, a share of the steps
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            train_sampling_strategy="group_by_length" if spec.length_grouped else "random",
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            bf16=spec.precision == "bf16",
            fp16=spec.precision == "fp16",
            logging_steps=max(1, round(spec.optimizer_steps(examples) / _POINTS)),
            logging_nan_inf_filter=False,  # a loss that is not a number must show
            report_to=list(spec.report_to),
            save_strategy=save,
            save_steps=spec.checkpoint_steps or 500,
            save_total_limit=1,
            eval_strategy=save if early else "no",
            eval_steps=spec.checkpoint_steps,
            load_best_model_at_end=early,
            restore_callback_states_from_checkpoint=early,
            **recompute,
        )
    except (ImportError, ValueError) as error:
        raise StudyError(f"cannot train like this: {first_line(error)}") from None
    # Of several GPUs one is used: torch's DataParallel would run threads on one plan.
    made._n_gpu = min(1, made.n_gpu)
    return made


def seed_of(use: str, seed: int) -> int:
    """A seed for one use of a trial's seed, such as the `order` of the data.

    The samplers add the epoch to it: without the hash, neighbouring seeds would share orders.
    """
    return int(digest(use, seed)[:8], 16) % 2**31
