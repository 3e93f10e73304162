"""From a task's specification to what a training needs: data, model, scores."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import torch
import transformers

from sparseattn.annotations import COLUMNS, PARSED
from sparseattn.errors import DataError, first_line
from sparseattn.files import cache_folder
from sparseattn.syntax import Annotator, Collator
from sparseattn.syntax.pipeline import DEFAULT
from sparseattn.tasks.classification import Classification, Regression
from sparseattn.tasks.data import read
from sparseattn.tasks.examples import Rows, check_columns, digest
from sparseattn.tasks.kind import Scores, TaskKind
from sparseattn.tasks.questions import QuestionAnswering
from sparseattn.tasks.ranking import Ranking
from sparseattn.tasks.spec import TaskSpec
from sparseattn.tasks.tagging import TokenClassification

KINDS: dict[str, type[TaskKind]] = {
    "classification": Classification,
    "regression": Regression,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "ranking": Ranking,
}

#: Raise it when the stored columns change.
_FORMAT = 1
#: Examples that are tokenised at a time.
_BATCH = 1000
#: What models read, of the names that kinds give to it.
_INPUTS = ("text", "text_pair", "tokens", "question", "context", "query", "documents")
#: Columns of the inputs that are for the model.
_MODEL_COLUMNS = frozenset(
    {*COLUMNS, "input_ids", "token_type_ids", "labels", "start_positions", "end_positions"}
)
_SUMMARY = "summary.json"

Annotate = Callable[..., dict[str, list[list[int]]]]
Inputs = tuple[datasets.DatasetDict, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task, ready to train on.

    Attributes:
        kind: What kind of task it is.
        train: Inputs to train on (windows for question answering), with their `length`.
        evaluation: Inputs to evaluate on, the longest first, with what scoring needs.
        rows: The examples that are evaluated on.
        collator: Joins inputs into a batch of what the model reads.
        counts: Examples, inputs and the share of the inputs that were cut, a split.
        fingerprint: Hash of the examples used and the names of their classes; it does not depend
            on where they came from.
        key: Hash of the tokenised inputs.
    """

    kind: TaskKind
    train: datasets.Dataset
    evaluation: datasets.Dataset
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
        settings = transformers.AutoConfig.from_pretrained(
            path, trust_remote_code=False, **{**self.kind.config, **config}
        )
        model_class = getattr(transformers, self.kind.model_class)
        try:
            # Weights as pickles are never read: unpickling can run code.
            return model_class.from_pretrained(
                path,
                config=settings,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except OSError as error:
            raise DataError(f"cannot load {path} (safetensors only): {first_line(error)}") from None

    def score(self, raw: Any) -> Scores:
        """Scores the logits for `evaluation`."""
        return self.kind.score(self.rows, self.evaluation, raw)

    def batches(self, size: int) -> Iterator[dict[str, torch.Tensor]]:
        """`evaluation` in collated batches."""
        for start in range(0, len(self.evaluation), size):
            places = range(start, min(start + size, len(self.evaluation)))
            yield self.collator(self.evaluation.__getitems__(list(places)))


@dataclass(frozen=True, eq=False)
class Examples:
    """What was read for a task and chosen from it.

    Attributes:
        kind: What kind of task it is.
        train: The examples to train on.
        evaluation: The examples to evaluate on.
        fingerprint: Hash of both and of the names of their classes; it does not depend on where
            they came from.
    """

    kind: TaskKind
    train: Rows
    evaluation: Rows
    fingerprint: str

    @property
    def counts(self) -> tuple[int, int]:
        """How many there are to train on and to evaluate on."""
        return len(self.train["example"]), len(self.evaluation["example"])

    @property
    def notices(self) -> list[str]:
        """What a user should know about the data before a model is trained on them."""

        def texts(rows: Rows) -> Iterator[tuple[Any, ...]]:
            return zip(*(map(str, rows[name]) for name in _INPUTS if name in rows), strict=True)

        trained = set(texts(self.train))
        seen = sum(text in trained for text in texts(self.evaluation))
        if not seen:
            return self.kind.notices
        return [
            *self.kind.notices,
            f"{seen:,} of {self.counts[1]:,} evaluation examples have the same text as a training "
            "example",
        ]


def read_examples(task: TaskSpec) -> Examples:
    """Reads the data of a task, chooses and checks its examples; a `DataError` if they misfit."""
    train, evaluation = read(task.data)
    for split in (train, evaluation):
        check_columns(task, split)
    kind = KINDS[task.kind](task, train)
    to_train = kind.rows(train, kind.choose(train, task.train))
    to_evaluate = kind.rows(evaluation, kind.choose(evaluation, task.evaluation))
    labels = kind.labels.names if kind.labels else ()
    return Examples(kind, to_train, to_evaluate, digest(labels, to_train, to_evaluate))


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
        needs: What the patterns to come read; see `sparseattn.annotations.ANNOTATIONS`. Only words,
            sentences, heads and tags cost anything.
        cache_dir: Where tokenised data are kept; `sparseattn.files.cache_folder()` by default.
        pipeline: The spaCy pipeline that annotates.

    Raises:
        DataError: The data cannot be read or do not fit the task.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} knows no offsets; use a fast tokenizer")
    examples = read_examples(task)
    annotated = sorted(needs & PARSED)
    shape = (task.kind, task.max_length, task.overlap)
    # Two versions of `tokenizers` may cut windows of the same texts differently, as 0.23.2 and
    # 0.23.3 do, and environments may share a cache.
    how = (_state(tokenizer), version("tokenizers"), annotated, pipeline if annotated else "")
    key = digest(_FORMAT, examples.fingerprint, shape, how)
    folder = (cache_dir or cache_folder()) / "inputs" / key
    annotator = Annotator.for_needs(tokenizer, needs, pipeline=pipeline, cache_dir=cache_dir)
    annotate = annotator.columns if annotator else None
    data, counts = _read(folder) or _write(folder, _tokenize_both(examples, tokenizer, annotate))
    return Prepared(
        kind=examples.kind,
        train=data["train"],
        evaluation=data["evaluation"],
        rows=examples.evaluation,
        collator=Collator(tokenizer, columns=_MODEL_COLUMNS),
        counts=counts,
        fingerprint=examples.fingerprint,
        key=key,
    )


def _state(tokenizer: Any) -> str:
    """A hash of everything that decides how a fast tokenizer cuts text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call asked for stays behind in these two.
    state.pop("truncation", None)
    state.pop("padding", None)
    return digest(type(tokenizer).__name__, tokenizer.padding_side, state)


def _tokenize_both(examples: Examples, tokenizer: Any, annotate: Annotate | None) -> Inputs:
    splits = {}
    counts: dict[str, float] = {}
    for name, rows in (("train", examples.train), ("evaluation", examples.evaluation)):
        inputs = _tokenize(examples.kind, rows, tokenizer, name == "train", annotate)
        counts[f"{name}_examples"] = len(rows["example"])
        counts[f"{name}_inputs"] = len(inputs)
        counts[f"{name}_cut"] = sum(inputs["cut"]) / len(inputs)
        splits[name] = inputs if name == "train" else longest_first(inputs)
    return datasets.DatasetDict(splits), counts


def _tokenize(
    kind: TaskKind, rows: Rows, tokenizer: Any, labelled: bool, annotate: Annotate | None
) -> datasets.Dataset:
    """A row an input of the model, with its `length` in tokens and the columns of `Encoded`."""
    parts = []
    for start in range(0, len(rows["example"]), _BATCH):
        batch = {name: column[start : start + _BATCH] for name, column in rows.items()}
        try:
            encoded = kind.encode(batch, tokenizer, labelled)
        except AssertionError as error:
            # transformers asserts, for instance, that RoBERTa's tokenizer is told of split words.
            raise DataError(f"{type(tokenizer).__name__} cannot tokenise this: {error}") from None
        columns = dict(encoded.columns)
        columns["row"] = [start + row for row in columns["row"]]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        if annotate is not None:
            columns |= annotate(encoded.encoding, *encoded.texts)
        parts.append(datasets.Dataset.from_dict(columns))
    return datasets.concatenate_datasets(parts)


def longest_first(inputs: datasets.Dataset) -> datasets.Dataset:
    """Sorts inputs by length, so that a batch needs little padding and memory peaks at once."""
    return inputs.select(np.argsort(-np.asarray(inputs["length"]), kind="stable"))


def _read(folder: Path) -> Inputs | None:
    try:
        summary = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
        return datasets.DatasetDict.load_from_disk(folder), summary
    except (OSError, ValueError, pyarrow.ArrowException):
        return None


def _write(folder: Path, inputs: Inputs) -> Inputs:
    """Writes tokenised data under another name and renames the folder: it is whole or not there."""
    data, summary = inputs
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _quiet_datasets():
            data.save_to_disk(draft)
        (draft / _SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except OSError:
        pass  # another process was faster, or nothing can be written here
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _read(folder) or inputs


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keeps the progress bars of `datasets` out of the way; puts the setting back."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
