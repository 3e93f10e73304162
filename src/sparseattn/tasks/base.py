"""From a task's specification to what a training needs: data, model, scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from sparseattn.errors import DataError
from sparseattn.files import cache_folder
from sparseattn.syntax import Annotator, Collator
from sparseattn.syntax.pipeline import DEFAULT
from sparseattn.tasks import store
from sparseattn.tasks.classification import Classification, Regression
from sparseattn.tasks.kind import DETAILS, Kind, Scores
from sparseattn.tasks.questions import QuestionAnswering
from sparseattn.tasks.rows import Rows, check_columns, choose, digest
from sparseattn.tasks.sources import read
from sparseattn.tasks.spec import TaskSpec
from sparseattn.tasks.tagging import TokenClassification
from sparseattn.tasks.tokenize import Annotate, longest_first, state, tokenised
from sparseattn.tokens import COLUMNS

__all__ = ["Prepared", "available", "fingerprint", "prepare", "survey"]

KINDS: dict[str, type[Kind]] = {
    "classification": Classification,
    "regression": Regression,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
}

#: Raise it when the stored columns change.
_FORMAT = 1
#: What models read, of the names that kinds give to it.
_INPUTS = ("text", "text_pair", "tokens", "question", "context")
#: Annotations that are made here rather than read from the tokens.
_ANNOTATED = frozenset({"words", "sentences", "heads"})


#: Columns of a task\'s inputs that are for the model.
MODEL_COLUMNS = frozenset(
    {*COLUMNS, "input_ids", "token_type_ids", "labels", "start_positions", "end_positions"}
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task, ready to train on.

    Attributes:
        kind: What kind of task it is.
        train: Inputs to train on (windows for question answering), with their `length`.
        evaluation: Inputs to evaluate on, the longest first.
        inputs: The same, with what scoring needs.
        rows: The examples that are evaluated on.
        collator: Joins inputs into a batch.
        counts: Examples, inputs and the share of the inputs that were cut, a split.
        fingerprint: Hash of the examples used and the names of their classes; it does not depend
            on where they came from.
        key: Hash of the tokenised inputs.
    """

    kind: Kind
    train: datasets.Dataset
    evaluation: datasets.Dataset
    inputs: datasets.Dataset
    rows: Rows
    collator: Collator
    counts: dict[str, float]
    fingerprint: str
    key: str

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return self.kind.headline

    def build_model(self, path: str | Path, seed: int, **config: Any) -> Any:
        """Loads a pretrained model with a head for the task, in float32.

        Args:
            path: A folder, or a name on the Hub.
            seed: Draws the weights of the head; also left as the state of the global generators.
            **config: Changes to the model's configuration, such as its dropout.
        """
        transformers.set_seed(seed)
        made = transformers.AutoConfig.from_pretrained(
            path, trust_remote_code=False, **{**self.kind.config, **config}
        )
        model_class = getattr(transformers, self.kind.model_class)
        try:
            # Weights as pickles are never read: unpickling can run code.
            return model_class.from_pretrained(
                path,
                config=made,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except OSError as error:
            what = str(error).strip().splitlines()[0]
            raise DataError(f"cannot load {path} (safetensors only): {what}") from None

    def score(self, raw: Any) -> Scores:
        """Scores the logits for `evaluation`."""
        return self.kind.score(self.rows, self.inputs, raw)

    def batches(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        """`evaluation` in collated batches."""
        for start in range(0, len(self.evaluation), size):
            places = range(start, min(start + size, len(self.evaluation)))
            yield self.collator(self.evaluation.__getitems__(list(places)))


@dataclass(frozen=True, eq=False)
class _Examples:
    """What was read for a task and chosen from it."""

    kind: Kind
    train: Rows
    evaluation: Rows

    @classmethod
    def of(cls, task: TaskSpec) -> _Examples:
        train, evaluation = read(task.data)
        for split in (train, evaluation):
            check_columns(task, split)
        kind = KINDS[task.kind](task, train)
        counted = getattr(task.columns, kind.counted)
        return cls(
            kind,
            kind.rows(train, choose(train, task.train, counted)),
            kind.rows(evaluation, choose(evaluation, task.evaluation, counted)),
        )

    @property
    def seen(self) -> int:
        """Evaluation examples of which the same text is trained on."""
        trained = set(self._texts(self.train))
        return sum(text in trained for text in self._texts(self.evaluation))

    @staticmethod
    def _texts(rows: Rows) -> Iterator[str]:
        read = [rows[name] for name in _INPUTS if name in rows]
        return (digest(values) for values in zip(*read, strict=True))

    @property
    def fingerprint(self) -> str:
        labels = self.kind.labels.names if self.kind.labels else ()
        return digest(labels, self.train, self.evaluation)


def fingerprint(task: TaskSpec) -> str:
    """`Prepared.fingerprint` without tokenising anything.

    Raises:
        DataError: The data cannot be read or do not fit the task.
    """
    return _Examples.of(task).fingerprint


def survey(task: TaskSpec) -> tuple[str, list[str]]:
    """`fingerprint`, and what a user should know about the data before a model is trained on them.

    Raises:
        DataError: The data cannot be read or do not fit the task.
    """
    examples = _Examples.of(task)
    total, seen = len(examples.evaluation["example"]), examples.seen
    told = f"{seen:,} of {total:,} evaluation examples have the same text as a training example"
    return examples.fingerprint, [told] if seen else []


def available(task: TaskSpec) -> tuple[int, int]:
    """How many examples a task trains on and is evaluated on.

    Raises:
        DataError: The data cannot be read, or there are too few.
    """
    examples = _Examples.of(task)
    return len(examples.train["example"]), len(examples.evaluation["example"])


def prepare(
    task: TaskSpec,
    tokenizer: Any,
    needs: frozenset[str] = frozenset(),
    cache_dir: Path | None = None,
    pipeline: str = DEFAULT,
) -> Prepared:
    """Reads, checks, annotates and tokenises the data of a task.

    Args:
        task: The task.
        tokenizer: A fast tokenizer.
        needs: What the patterns to come read; see `sparseattn.tokens.ANNOTATIONS`. Only words,
            sentences and heads cost anything.
        cache_dir: Where tokenised data are kept; `sparseattn.files.cache_folder()` by default.
        pipeline: The spaCy pipeline that annotates.

    Raises:
        DataError: The data cannot be read or do not fit the task.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} knows no offsets; use a fast tokenizer")
    examples = _Examples.of(task)
    annotated = sorted(needs & _ANNOTATED)
    shape = (task.kind, task.max_length, task.overlap)
    # Two versions of `tokenizers` may cut windows of the same texts differently, as 0.23.2 and
    # 0.23.3 do, and environments may share a cache.
    how = (state(tokenizer), version("tokenizers"), annotated, pipeline if annotated else "")
    key = digest(_FORMAT, examples.fingerprint, shape, how)
    place = (cache_dir or cache_folder()) / "inputs" / key
    annotate = Annotator(tokenizer, pipeline, cache_dir).columns if annotated else None
    data, counts = store.remembered(place, partial(_tokenised, examples, tokenizer, annotate))
    inputs = data["evaluation"]
    return Prepared(
        kind=examples.kind,
        train=data["train"],
        evaluation=inputs.remove_columns([name for name in DETAILS if name in inputs.column_names]),
        inputs=inputs,
        rows=examples.evaluation,
        collator=Collator(tokenizer, columns=MODEL_COLUMNS),
        counts=counts,
        fingerprint=examples.fingerprint,
        key=key,
    )


def _tokenised(
    examples: _Examples, tokenizer: Any, annotate: Annotate | None
) -> tuple[datasets.DatasetDict, dict[str, float]]:
    made = {}
    counts: dict[str, float] = {}
    for name, rows in (("train", examples.train), ("evaluation", examples.evaluation)):
        inputs = tokenised(examples.kind, rows, tokenizer, name == "train", annotate)
        counts[f"{name}_examples"] = len(rows["example"])
        counts[f"{name}_inputs"] = len(inputs)
        counts[f"{name}_cut"] = sum(inputs["cut"]) / len(inputs)
        made[name] = inputs if name == "train" else longest_first(inputs)
    return datasets.DatasetDict(made), counts
