"""What one process keeps from trial to trial, so that it is not made again."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sparseattn.counting import MeasuredSparsity
from sparseattn.models.identity import identity
from sparseattn.models.load import load_part
from sparseattn.models.names import resolve
from sparseattn.tasks.prepare import Prepared, prepare
from sparseattn.tasks.spec import TaskSpec

#: Tokenizers that must be told in advance that words come split.
_SPLIT_WORDS = ("roberta", "gpt2", "bloom", "deberta", "longformer", "camembert", "modernbert")


class TrialCache:
    """Tokenizers, prepared data and counted plans of the trials that a process runs.

    A pretrained model is not among them: making one of a local file, which the system keeps in
    memory, takes less than a training step.

    Args:
        folder: Where tokenised data and parses are kept on disk; `$SPARSEATTN_CACHE`, else
            `~/.cache/sparseattn`, by default.

    Attributes:
        measured: Counted plans.
        place: Where a model lies; see `sparseattn.models.names.resolve`.
        identity: What a model's name stands for; see `sparseattn.models.identity`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.measured: dict[Any, MeasuredSparsity] = {}
        self.place, self.identity = cache(resolve), cache(identity)
        self._tokenizer = cache(_tokenizer)
        self._prepared: dict[Any, Prepared] = {}

    def tokenizer(self, model: str, task: TaskSpec) -> Any:
        """A model's tokenizer for a task: words that come split ask some for an option.

        Raises:
            DataError: There is no such model, or it has no tokenizer.
        """
        return self._tokenizer(model, task.kind == "token-classification")

    def prepared(
        self, model: str, task: TaskSpec, needs: frozenset[str], pipeline: str
    ) -> Prepared:
        """A task's data for a model; see `sparseattn.tasks.prepare.prepare`."""
        key = (model, task, needs, pipeline)
        if key not in self._prepared:
            tokenizer = self.tokenizer(model, task)
            self._prepared[key] = prepare(task, tokenizer, needs, self.folder, pipeline)
        return self._prepared[key]


def _tokenizer(model: str, split_words: bool) -> Any:
    family = load_part(model, "AutoConfig").model_type if split_words else ""
    options = {"add_prefix_space": True} if family.endswith(_SPLIT_WORDS) else {}
    return load_part(model, "AutoTokenizer", **options)
