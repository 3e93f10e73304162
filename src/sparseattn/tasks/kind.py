"""What each kind of task has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets
import pyarrow

from sparseattn.errors import DataError, unknown
from sparseattn.tasks.data import Split
from sparseattn.tasks.examples import Labels, Rows, draw, fitting
from sparseattn.tasks.spec import METRICS, Subset, TaskSpec


@dataclass(frozen=True)
class Scores:
    """How well a model did.

    Attributes:
        metrics: By name; shares in [0, 1], correlations in [-1, 1].
        examples: A row an example, in the order of the data: `example` (its name), `label`,
            `prediction`, and `score`, its part in the headline (1 or 0 for a class, F1, or a
            squared error).
    """

    metrics: dict[str, float]
    examples: pyarrow.Table


@dataclass(frozen=True)
class Encoded:
    """Some examples as a tokenizer sees them.

    Attributes:
        columns: A list a column, a value an input of the model (a text, or a window); `row` says
            which example it belongs to, `cut` whether tokens were dropped.
        encoding: The tokenizer's own result, for annotations.
        texts: The texts that it was given, and the second texts if there are.
    """

    columns: Rows
    encoding: Any
    texts: tuple[Sequence[Any], ...]


class TaskKind(ABC):
    """A kind of task.

    Args:
        task: The task.
        train: Its training split, for the names of the classes.
    """

    #: The transformers class of its models.
    model_class: ClassVar[str]
    #: How many arrays of logits its models return.
    outputs: ClassVar[int] = 1
    #: The task's column that `min_words` counts.
    counted: ClassVar[str]

    def __init__(self, task: TaskSpec, train: Split) -> None:
        self.task = task
        #: What a user should know of the examples that `rows` has read.
        self.notices: list[str] = []
        self.labels: Labels | None = self._labels(train)
        if self.headline not in self.metrics:
            raise DataError(unknown("headline", self.headline, self.metrics))

    def _labels(self, train: Split) -> Labels | None:  # noqa: ARG002
        return None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of its metrics."""
        return METRICS[self.task.kind]

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return self.task.headline or METRICS[self.task.kind][0]

    @property
    def config(self) -> dict[str, Any]:
        """What the configuration of its models says."""
        if self.labels is None:
            return {}
        names = self.labels.names
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def choose(self, split: Split, subset: Subset) -> list[int]:
        """Row numbers of the examples of a subset, in order.

        Raises:
            DataError: There are not as many.
        """
        column = getattr(self.task.columns, self.counted)
        return draw(split, subset, fitting(split, subset, column))

    @abstractmethod
    def rows(self, split: Split, chosen: Sequence[int]) -> Rows:
        """Checks examples and brings them under the task's own names, with `example`, their name.

        Raises:
            DataError: A value that the task cannot use.
        """

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: Any, labelled: bool) -> Encoded:
        """Tokenises examples.

        Args:
            rows: What `rows` returned, or a part of it.
            tokenizer: A fast tokenizer.
            labelled: Whether they are to train on.
        """

    @abstractmethod
    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        """Scores a model's outputs.

        Args:
            rows: The examples.
            inputs: What the model saw, with the columns of `Encoded`, in the order of `raw`.
            raw: The model's logits: one array, or a tuple of them.
        """


def model_inputs(encoding: Any) -> Rows:
    """What of a tokenizer's result goes to the model; batches bring their own attention mask."""
    return {n: encoding[n] for n in ("input_ids", "token_type_ids") if n in encoding}


def example_table(rows: Rows, **columns: Any) -> pyarrow.Table:
    """The table of `Scores`, from a sequence or an array a column."""
    names: Rows = {name: rows[name] for name in ("example", "cluster") if name in rows}
    return pyarrow.table({**names, **columns})
