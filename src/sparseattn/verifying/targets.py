"""What can be verified, each as a function from texts to what comes out for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.errors import DataError, SparseAttnError, first_line
from sparseattn.exporting.formats import FORMATS, Opened
from sparseattn.exporting.record import Record
from sparseattn.verifying.texts import Text

#: One text's output. Shape: [length, width] for its tokens, or [width] for a vector.
Outputs = NDArray[np.float64]
#: Runs a batch of texts of one length.
Run = Callable[[Sequence[Text]], list[Outputs]]

#: Outputs of a file, the most telling first.
_PREFERRED = ("token_embeddings", "last_hidden_state", "sentence_embedding", "logits")


def is_file(what: Any) -> bool:
    """Whether it is the path of an exported file."""
    ends = tuple(form.suffix for form in FORMATS.values())
    return isinstance(what, str | Path) and str(what).endswith(ends)


@dataclass(frozen=True)
class File:
    """An exported file that can be run."""

    path: Path
    opened: Opened

    @classmethod
    def open(cls, path: Path) -> File:
        """Opens it.

        Raises:
            DataError: There is none, or it cannot be read.
            MissingExtraError: What runs it is not installed.
        """
        form = next(form for form in FORMATS.values() if path.suffix == form.suffix)
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        form.check_installed()
        try:
            return cls(path, form.run(path, None))
        except SparseAttnError:
            raise
        except Exception as error:
            raise DataError(f"{path} is no file of {form.name}: {first_line(error)}") from error

    def record(self) -> Record:
        """What it says of itself; a `DataError` where it says nothing."""
        return Record.read(self.opened.record, self.path)

    def __call__(self, texts: Sequence[Text]) -> list[Outputs]:
        """Runs it."""
        ids = torch.cat([text.columns["input_ids"] for text in texts])
        blank = dict.fromkeys(self.opened.inputs, torch.zeros_like(ids))
        known = {n: torch.cat([text.columns[n] for text in texts]) for n in texts[0].columns}
        known |= {"position_ids": torch.arange(ids.shape[1]).expand_as(ids)}
        try:
            outputs = self.opened({**blank, **known})
        except Exception as error:
            raise DataError(
                f"{self.path} does not run on {ids.shape[1]:,} tokens: {first_line(error)}"
            ) from error
        first = next((name for name in _PREFERRED if name in outputs), next(iter(outputs)))
        return [value.double().numpy() for value in outputs[first]]


def of_function(function: Callable[[list[Any]], Any], name: str) -> Run:
    """Wraps a function from texts, as they were given, to vectors.

    Args:
        function: The function.
        name: What it is called in messages.
    """

    def run(texts: Sequence[Text]) -> list[Outputs]:
        answers = function([text.source for text in texts])
        if not hasattr(answers, "__len__") or len(answers) != len(texts):
            raise DataError(f"{name} gives something else than a vector for each text")
        return [_array(answer, text, name) for answer, text in zip(answers, texts, strict=True)]

    return run


def _array(answer: Any, text: Text, name: str) -> Outputs:
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
