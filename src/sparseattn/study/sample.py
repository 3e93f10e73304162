"""A sample of a study's own training texts, to count patterns on before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

from sparseattn.backend import AUTO
from sparseattn.degrees.method import Method, parse_method
from sparseattn.degrees.methods.fixed import UniformMethod
from sparseattn.degrees.texts import Texts, spread_indices
from sparseattn.errors import DataError, PlanError
from sparseattn.models.describe import measure
from sparseattn.models.load import quiet
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import Plan
from sparseattn.selection import select_indices
from sparseattn.study.arms import DENSE, is_method
from sparseattn.study.grid import ArmSparsity
from sparseattn.study.spec import StudySpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.kind import DETAILS
from sparseattn.tasks.prepare import Prepared, longest_first
from sparseattn.tasks.spec import Subset

__all__ = ["TEXTS", "Sample"]

#: Training examples in a sample.
TEXTS = 256

#: Examples that are counted at a time.
_BATCH = 32


class Sample:
    """Some training texts as the model gets them.

    Args:
        spec: The study.
        needs: The annotations that its patterns read.
        cache: Where tokenizers and data come from.

    Raises:
        DataError: The data cannot be read or do not fit the task.
    """

    def __init__(self, spec: StudySpec, needs: Iterable[str], cache: TrialCache) -> None:
        self._spec, self._cache = spec, cache
        prepared = _prepared(spec, frozenset(needs), cache)
        extra = [name for name in DETAILS if name in prepared.train.column_names]
        texts = prepared.train.remove_columns(extra)
        # An example that is cut into windows is several texts.
        chosen = longest_first(texts.select(spread_indices(len(texts), TEXTS)))
        self.texts = replace(prepared, evaluation=chosen)
        with quiet():
            self.model = prepared.build_model(cache.place(spec.model), seed=0)
        self.tokenizer = cache.tokenizer(spec.model, spec.task)
        self._measured: dict[tuple[str, str], ArmSparsity] = {}
        self._plans: dict[UniformMethod, Plan] = {}

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self.texts.evaluation[0]["length"])

    def measure(self, pattern: str, layers: str) -> ArmSparsity:
        """What a pattern comes to.

        Raises:
            PlanError: The placement names a layer that the model lacks.
            UnsupportedModelError: The model does not let its attention be replaced.
        """
        key = (pattern, ":" if pattern == DENSE else layers)
        if key not in self._measured:
            self._measured[key] = self._measure(*key)
        return self._measured[key]

    def check(self, pattern: str, layers: str, backend: str = AUTO, step: bool = False) -> None:
        """Makes sure that a pattern, its placement and a backend fit the model.

        Args:
            pattern: What an arm says.
            layers: Where it stands.
            backend: What is to compute its attention.
            step: Try a step of training on two texts, since what a backend asked for by name
                cannot compute shows in a call alone.

        Raises:
            PlanError: The placement names a layer that the model lacks, or a method cannot reach
                its sparsity on these texts.
            UnsupportedModelError: The model does not let its attention be replaced.
            BackendError: The backend cannot serve this model, or cannot train like this.
        """
        if pattern == DENSE:
            return
        plan = self._plan(pattern, layers)
        if is_method(pattern):
            method = parse_method(pattern)
            data, collator = self._rows(method.base.budget_split), self.texts.collator
            method.check(Texts(self.model, data, collator, TEXTS), self.tokenizer)
        with sparsified(self.model, plan, tokenizer=self.tokenizer, backend=backend):
            if step:
                self._step()

    def _step(self) -> None:
        data = self.texts.evaluation
        two = data.__getitems__(list(range(max(0, len(data) - 2), len(data))))
        self.model.train()
        try:
            outputs = self.model(**self.texts.collator(two))
            next(iter(outputs.values())).float().sum().backward()
        finally:
            self.model.eval()
            self.model.zero_grad(set_to_none=True)

    def _plan(self, pattern: str, layers: str) -> Plan:
        if is_method(pattern):
            return self._uniform(parse_method(pattern))
        return Plan.of("full()" if pattern == DENSE else pattern, layers)

    def _measure(self, pattern: str, layers: str) -> ArmSparsity:
        plan = self._plan(pattern, layers)
        with sparsified(self.model, plan, tokenizer=self.tokenizer):
            whole = measure(self.model, self.texts.batches(_BATCH))
        inside = whole.on_layers(select_indices(layers, len(whole.heads), "layer"))
        return ArmSparsity(inside.mean_degree, inside.sparsity, whole.sparsity)

    def _uniform(self, method: Method) -> Plan:
        """A plan of a method's sparsity, as every method is to find one.

        Raises:
            PlanError: It cannot be reached on these texts.
        """
        base = method.base
        uniform = UniformMethod(base.sparsity, base.globals, base.budget_split)
        if uniform not in self._plans:
            data, collator = self._rows(base.budget_split), self.texts.collator
            try:
                plan = uniform.plan(self.model, data, collator, self.tokenizer)
            except PlanError as error:
                raise PlanError(str(error).replace(f"{uniform}:", f"{method}:")) from None
            self._plans[uniform] = plan
        return self._plans[uniform]

    def _rows(self, split: str) -> Any:
        """The texts that a method's sparsity is met on."""
        return self.texts.evaluation if split == "train" else self._evaluation

    @cached_property
    def _evaluation(self) -> Any:
        """Some evaluation texts, likewise; of them nothing but the lengths is looked at."""
        prepared = _prepared(self._spec, frozenset(), self._cache, TEXTS)
        return prepared.evaluation.select(spread_indices(len(prepared.evaluation), TEXTS))


def _prepared(
    spec: StudySpec, needs: frozenset[str], cache: TrialCache, evaluation: int = 16
) -> Prepared:
    """The task with no more examples than the sample takes."""
    sizes = {"train": TEXTS, "evaluation": evaluation}
    part = {name: _smaller(getattr(spec.task, name), most) for name, most in sizes.items()}
    try:
        task = spec.task.model_copy(update=part)
        return cache.prepared(spec.model, task, needs, spec.pipeline)
    except DataError:  # it has fewer
        return cache.prepared(spec.model, spec.task, needs, spec.pipeline)


def _smaller(subset: Subset, most: int) -> Subset:
    return subset.model_copy(update={"count": min(most, subset.count or most)})
