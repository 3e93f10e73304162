"""What one process keeps from trial to trial, so that it is not made again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseattn.counting import MeasuredSparsity
    from sparseattn.tasks.prepare import Prepared
    from sparseattn.tasks.spec import TaskSpec

__all__ = ["TrialCache"]

#: Tokenizers that must be told in advance that words come split.
_SPLIT_WORDS = ("roberta", "gpt2", "bloom", "deberta", "longformer", "camembert", "modernbert")


class TrialCache:
    """Tokenizers, prepared data and counted plans of the trials that a process runs.

    A pretrained model is not among them. Making one of a local file, which the system keeps in
    memory, takes less than a training step, and no longer than making one of weights that were
    kept: 0.1 s for MiniLM.

    Args:
        folder: Where tokenised data and parses are kept on disk; `$SPARSEATTN_CACHE`, else
            `~/.cache/sparseattn`, by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.measured: dict[Any, MeasuredSparsity] = {}
        self._places: dict[str, str] = {}
        self._identities: dict[str, str] = {}
        self._tokenizers: dict[Any, Any] = {}
        self._prepared: dict[Any, Prepared] = {}

    def place(self, model: str) -> str:
        """Where a model lies."""
        if model not in self._places:
            from sparseattn.models.names import resolve

            self._places[model] = resolve(model)
        return self._places[model]

    def identity(self, model: str) -> str:
        """What a model's name stands for; see `sparseattn.models.names.identity`."""
        if model not in self._identities:
            from sparseattn.models.names import identity

            self._identities[model] = identity(model)
        return self._identities[model]

    def tokenizer(self, model: str, task: TaskSpec) -> Any:
        """A model's tokenizer.

        Args:
            model: The model's name.
            task: What it is for: split words ask some tokenizers for an option.

        Raises:
            DataError: There is no such model, or it has no tokenizer.
        """
        from sparseattn.models.load import load_part

        split = task.kind == "token-classification"
        if (model, split) not in self._tokenizers:
            family = load_part(model, "AutoConfig").model_type if split else ""
            options = {"add_prefix_space": True} if family.endswith(_SPLIT_WORDS) else {}
            self._tokenizers[model, split] = load_part(model, "AutoTokenizer", **options)
        return self._tokenizers[model, split]

    def prepared(
        self, model: str, task: TaskSpec, needs: frozenset[str], pipeline: str
    ) -> Prepared:
        """A task's data for a model; see `sparseattn.tasks.prepare.prepare`."""
        from sparseattn.tasks.prepare import prepare

        key = (model, task, needs, pipeline)
        if key not in self._prepared:
            tokenizer = self.tokenizer(model, task)
            self._prepared[key] = prepare(task, tokenizer, needs, self.folder, pipeline)
        return self._prepared[key]
