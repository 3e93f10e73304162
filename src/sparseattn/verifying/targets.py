"""What can be verified, each as a function from texts to what comes out for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseattn.errors import DataError, SparseAttnError, first_line
from sparseattn.exporting.formats import FORMATS, format_of
from sparseattn.exporting.record import Record
from sparseattn.verifying.judging import Array
from sparseattn.verifying.texts import Text

#: Runs a batch of texts of one length. Of each text come the outputs of its tokens, [length,
#: width], or a vector, [width].
Run = Callable[[Sequence[Text]], list[Array]]

#: Outputs of a file, the most telling first.
_PREFERRED = ("token_embeddings", "last_hidden_state", "sentence_embedding", "logits")


def is_file(what: Any) -> bool:
    """Whether it is the path of an exported file."""
    ends = tuple(form.suffix for form in FORMATS.values())
    return isinstance(what, str | Path) and str(what).endswith(ends)


class File:
    """An exported file, opened.

    Raises:
        DataError: There is none, or it cannot be read.
        MissingExtraError: What runs it is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        form = format_of(path)
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        form.check_installed()
        try:
            self._opened = form.run(path, None)
        except SparseAttnError:
            raise
        except Exception as error:
            raise DataError(f"{path} is no file of {form.name}: {first_line(error)}") from error

    def record(self) -> Record:
        """What it says of itself; a `DataError` where it says nothing."""
        return Record.read(self._opened.record, self._path)

    def __call__(self, texts: Sequence[Text]) -> list[Array]:
        """Runs it."""
        ids = torch.cat([text.columns["input_ids"] for text in texts])
        blank = dict.fromkeys(self._opened.inputs, torch.zeros_like(ids))
        known = {n: torch.cat([text.columns[n] for text in texts]) for n in texts[0].columns}
        known |= {"position_ids": torch.arange(ids.shape[1]).expand_as(ids)}
        try:
            outputs = self._opened({**blank, **known})
        except Exception as error:
            raise DataError(
                f"{self._path} does not run on {ids.shape[1]:,} tokens: {first_line(error)}"
            ) from error
        first = next((name for name in _PREFERRED if name in outputs), next(iter(outputs)))
        return [value.double().numpy() for value in outputs[first]]


def of_function(function: Callable[[list[Any]], Any], name: str) -> Run:
    """Wraps a function from texts, as they were given, to vectors; its name is for messages."""

    def run(texts: Sequence[Text]) -> list[Array]:
        answers = function([text.source for text in texts])
        if not hasattr(answers, "__len__") or len(answers) != len(texts):
            raise DataError(f"{name} gives something else than a vector for each text")
        return [_array(answer, text, name) for answer, text in zip(answers, texts, strict=True)]

    return run


def _array(answer: Any, text: Text, name: str) -> Array:
    if isinstance(answer, Tensor):
        answer = answer.detach().cpu().double().numpy()
    try:
        array = np.asarray(answer, dtype=np.float64)
    except (ValueError, TypeError):
        array = np.empty(0)
    if array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
        raise DataError(f"{name} gives something else than a vector of finite numbers for a text")
    if array.ndim == 2 and len(array) == 1 < len(text):
        array = array[0]
    if array.ndim == 2 and len(array) != len(text):
        raise DataError(
            f"{name} gives {len(array):,} vectors for the {len(text):,} tokens of a text; is it "
            "cut, or another model's?"
        )
    return array
