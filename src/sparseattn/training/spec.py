"""How a model is trained, as a record that a YAML file fills in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sparseattn.errors import StudyError
from sparseattn.tasks.spec import Fraction, Integer, Names, Real, StrictModel

#: Called with a phase (`prepare`, `train`, `evaluate`) and the share of it that is done, in [0, 1].
Progress = Callable[[str, float], None]

Positive = Annotated[Integer, Field(ge=1)]

#: Share of the training examples that early stopping holds out, unless a spec says otherwise.
_HELD_OUT = 0.1


class TrainingSpec(StrictModel):
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the training examples; 3 unless `steps` is given.
        steps: Optimiser steps, instead of epochs.
        batch_size: Examples (windows for question answering) a batch.
        evaluation_batch_size: Likewise, without gradients.
        learning_rate: The peak of AdamW's learning rate.
        schedule: What the learning rate does after the warm-up.
        warmup: Share of the steps over which the learning rate rises from 0.
        weight_decay: Of AdamW; not on biases and normalisation.
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them alone.
        gradient_accumulation: Batches an optimiser step.
        gradient_checkpointing: Recompute activations instead of keeping them.
        precision: `bf16` and `fp16` run the model's products in that type (autocast).
        length_grouped: Batch texts of similar length together.
        dropout: Instead of the model's own dropout, that of attention included.
        attention_dropout: Instead of the model's own dropout of attention weights.
        early_stopping: Stop after so many evaluations without a lower loss on training examples
            that are held out, and go back to the best. The evaluation split plays no part.
        held_out: Share of the training examples held out, with `early_stopping` only.
        checkpoint_steps: Save every so many steps, to resume from.
        report_to: Loggers that transformers knows, such as `tensorboard`.
    """

    epochs: Annotated[Real, Field(gt=0)] | None = None
    steps: Positive | None = None
    batch_size: Positive = 32
    evaluation_batch_size: Positive = 64
    learning_rate: Annotated[Real, Field(gt=0)] = 5e-5
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: Fraction = 0.1
    weight_decay: Annotated[Real, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[Real, Field(ge=0)] = 1.0
    gradient_accumulation: Positive = 1
    gradient_checkpointing: bool = False
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    length_grouped: bool = False
    dropout: Fraction | None = None
    attention_dropout: Fraction | None = None
    early_stopping: Positive | None = None
    held_out: Annotated[Fraction, Field(gt=0)] = _HELD_OUT
    checkpoint_steps: Positive | None = None
    report_to: Names = ()

    @model_validator(mode="before")
    @classmethod
    def _epochs_or_steps(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("epochs") is not None and values.get("steps") is not None:
            raise PydanticCustomError("length", "a training has epochs or steps, not both")
        if values.get("steps") is None and values.get("epochs") is None:
            return {**values, "epochs": 3.0}
        return values

    @model_validator(mode="after")
    def _held_out_for_a_reason(self) -> TrainingSpec:
        if self.early_stopping is None and self.held_out != _HELD_OUT:
            raise PydanticCustomError(
                "held_out", "held_out goes with early_stopping, which is not set; leave it out"
            )
        return self

    def optimizer_steps(self, inputs: float) -> int:
        """Optimiser steps of a training on so many inputs."""
        batches = math.ceil(inputs / self.batch_size / self.gradient_accumulation)
        return self.steps or math.ceil(batches * (self.epochs or 0))

    def held_out_count(self, examples: int) -> int:
        """How many of the training examples early stopping holds out.

        Raises:
            StudyError: None would be held out, or none would be left.
        """
        count = round(examples * self.held_out)
        if 0 < count < examples:
            return count
        problem = f"training.held_out: {self.held_out:g} of {examples} training examples"
        if examples < 2:
            raise StudyError(f"{problem}: early_stopping needs two or more; leave it out")
        raise StudyError(
            f"{problem} {'is none' if count == 0 else 'leaves none to train on'}; "
            f"choose from {1 / examples:.6g} to {1 - 1 / examples:.6g}"
        )
