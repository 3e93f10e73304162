"""The answer to a question, as a span of a text: windows, spans, and SQuAD's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from sparseattn.errors import DataError
from sparseattn.tasks.data import Split
from sparseattn.tasks.examples import Rows, located, names_of, texts, values
from sparseattn.tasks.kind import Encoded, Scores, TaskKind, example_table, model_inputs

#: Longest question, in tokens, as in BERT's own script for SQuAD.
_QUESTION = 64

#: Spans among which the best is looked for: which of equal ones it is hangs on their number.
_SPANS = 20


class QuestionAnswering(TaskKind):
    """Extractive question answering as in SQuAD 1.1: F1 and exact match.

    A context that is too long is read through overlapping windows; the best span over all windows
    of a question is the answer. A training window without the answer points at the first token.
    """

    model_class = "AutoModelForQuestionAnswering"
    outputs = 2
    counted = "context"

    def rows(self, split: Split, chosen: Sequence[int]) -> Rows:
        columns = self.task.columns
        found: Rows = {
            "example": names_of(split, columns.id, chosen),
            "question": [text.lstrip() for text in texts(split, columns.question, chosen)],
            "context": texts(split, columns.context, chosen),
            "answers": [],
            "starts": [],
        }
        number: dict[str, int] = {}
        found["cluster"] = [number.setdefault(text, len(number)) for text in found["context"]]
        given = values(split, columns.answers, chosen)
        for row, answers, context in zip(chosen, given, found["context"], strict=True):
            problem = _problem(answers, context)
            if problem:
                raise located(split, row, columns.answers, problem)
            found["answers"].append(answers["text"])
            found["starts"].append(answers["answer_start"])
        return found

    def encode(self, rows: Rows, tokenizer: Any, labelled: bool) -> Encoded:
        questions, cut = self._short_questions(rows["question"], tokenizer)
        encoding = tokenizer(
            questions,
            rows["context"],
            truncation="only_second",
            max_length=self.task.max_length,
            stride=self.task.overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        which = encoding["overflow_to_sample_mapping"]
        columns: Rows = model_inputs(encoding)
        columns |= {"row": which, "cut": [cut[row] for row in which]}
        windows = [_context_offsets(one) for one in encoding.encodings]
        if labelled:
            spans = [
                answer_tokens(window, rows["starts"][row][0], len(rows["answers"][row][0]))
                for window, row in zip(windows, which, strict=True)
            ]
            columns["start_positions"] = [first for first, _ in spans]
            columns["end_positions"] = [last for _, last in spans]
        else:
            columns["starts"] = [window[:, 0].tolist() for window in windows]
            columns["ends"] = [window[:, 1].tolist() for window in windows]
        return Encoded(columns, encoding, (questions, rows["context"]))

    def _short_questions(
        self, questions: list[str], tokenizer: Any
    ) -> tuple[list[str], list[bool]]:
        """Cuts questions so that the windows keep room for the context."""
        limit = min(_QUESTION, self.task.max_length // 3)
        room = self.task.max_length - limit - tokenizer.num_special_tokens_to_add(pair=True)
        if self.task.overlap >= room:
            raise DataError(
                f"stride {self.task.overlap} does not fit: windows of {self.task.max_length} "
                f"tokens leave {room} for the context; choose from: 0 to {room - 1}"
            )
        short, cut = [], []
        offsets = tokenizer(
            questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        for question, places in zip(questions, offsets, strict=True):
            cut.append(len(places) > limit)
            short.append(question[: places[limit - 1][1]] if cut[-1] else question)
        return short, cut

    def score(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> Scores:
        best = self._answers(rows, inputs, raw)
        exact, f1 = _squad(best, rows)
        return Scores(
            dict(zip(self.metrics, (float(f1.mean()), float(exact.mean())), strict=True)),
            example_table(
                rows,
                label=[answers[0] for answers in rows["answers"]],
                prediction=best,
                score=f1,
                exact=exact,
            ),
        )

    def _answers(self, rows: Rows, inputs: datasets.Dataset, raw: Any) -> list[str]:
        """The best answer to each question over all its windows; empty without a possible span.

        Args:
            rows: The examples.
            inputs: The windows, in the order of `raw`.
            raw: Logits of starts and ends. Shape: 2 x [windows, length].
        """
        found = [("", -np.inf) for _ in rows["example"]]
        starts, ends = np.asarray(raw[0], dtype=float), np.asarray(raw[1], dtype=float)
        columns = (inputs["row"], inputs["starts"], inputs["ends"])
        for index, (row, first, last) in enumerate(zip(*columns, strict=True)):
            window = np.stack([first, last], axis=1)
            length = len(window)
            a, b, score = best_span(
                starts[index, :length], ends[index, :length], window, self.task.max_answer
            )
            if score > found[row][1]:
                found[row] = rows["context"][row][a:b], score
        return [text for text, _ in found]


def _problem(answers: Any, context: str) -> str:
    """What is wrong with the answers to a question; empty if nothing is."""
    if not isinstance(answers, dict) or not (
        _is_list_of(str, answers.get("text")) and _is_list_of(int, answers.get("answer_start"))
    ):
        return f"expected lists text and answer_start, got {answers!r}"
    given, starts = answers["text"], answers["answer_start"]
    if not given or not starts or len(given) != len(starts):
        return "every question needs an answer, with its place; this one has none"
    for text, start in zip(given, starts, strict=True):
        if not text or context[start : start + len(text)] != text:
            return f"the answer {text!r} does not stand at character {start} of the context"
    return ""


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _context_offsets(one: Any) -> NDArray[np.int64]:
    """Character offsets of a window's tokens; -1 for those outside the context.

    Shape: [length, 2].
    """
    offsets = np.asarray(one.offsets, dtype=np.int64)
    inside = np.asarray([index == 1 for index in one.sequence_ids])
    offsets[~inside] = -1
    return offsets


def _squad(best: list[str], rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact match and F1 of each answer, in [0, 1], with SQuAD's normalisation."""
    from torchmetrics.functional.text import squad

    scores = []
    for text, answers, starts in zip(best, rows["answers"], rows["starts"], strict=True):
        target: Any = {"answers": {"text": answers, "answer_start": starts}, "id": ""}
        made = squad([{"prediction_text": text, "id": ""}], [target])
        scores.append((float(made["exact_match"]) / 100, float(made["f1"]) / 100))
    pairs = np.asarray(scores)
    return pairs[:, 0], pairs[:, 1]


def answer_tokens(window: NDArray[np.int64], start: int, length: int) -> tuple[int, int]:
    """The first and last token of an answer, or (0, 0) if the window does not hold all of it.

    Args:
        window: Character offsets of its tokens, -1 outside the context. Shape: [tokens, 2].
        start: The answer's first character.
        length: How many characters it has.

    >>> answer_tokens(np.array([[-1, -1], [0, 3], [4, 7], [8, 9], [-1, -1]]), 4, 5)
    (2, 3)
    """
    inside = np.flatnonzero(window[:, 0] >= 0)
    end = start + length
    if not len(inside) or window[inside[0], 0] > start or window[inside[-1], 1] < end:
        return 0, 0
    first = inside[window[inside, 1] > start][0]
    last = inside[window[inside, 0] < end][-1]
    return int(first), int(last)


def best_span(
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    window: NDArray[np.int64],
    longest: int,
) -> tuple[int, int, float]:
    """The best span of one window, over all pairs of a start and an end.

    Args:
        starts: Logits. Shape: [tokens].
        ends: Logits. Shape: [tokens].
        window: Character offsets of the tokens, -1 outside the context. Shape: [tokens, 2].
        longest: Most tokens of a span.

    Returns:
        Its first character, its last (exclusive), and its score: the sum of two logits, -inf where
        no span is possible.
    """
    inside = window[:, 0] >= 0
    padded = np.pad(np.where(inside, ends, -np.inf), (0, longest - 1), constant_values=-np.inf)
    banded = np.lib.stride_tricks.sliding_window_view(padded, longest)
    flat = (np.where(inside, starts, -np.inf)[:, None] + banded).ravel()
    kept = min(_SPANS, flat.size)
    best = np.argpartition(-flat, kept - 1)[:kept]
    place = int(best[np.argsort(-flat[best], kind="stable")[0]])
    first, extra = divmod(place, longest)
    last = min(first + extra, len(window) - 1)  # beyond the end where no span is possible
    return int(window[first, 0]), int(window[last, 1]), float(flat[place])
