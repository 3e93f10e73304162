"""From a spec to a study: data fingerprinted, patterns checked, free numbers solved on a sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from sparseattn.backend import AUTO
from sparseattn.degrees.method import Method, is_method, parse_method
from sparseattn.degrees.methods.fixed import UniformMethod
from sparseattn.degrees.texts import Texts, spread_indices
from sparseattn.errors import BackendError, DataError, PlanError, StudyError
from sparseattn.models.describe import measure
from sparseattn.models.load import quiet
from sparseattn.models.sparsify import sparsified
from sparseattn.plan import Plan
from sparseattn.selection import select_indices
from sparseattn.study import arms
from sparseattn.study.arms import DENSE
from sparseattn.study.grid import ArmSparsity, check_size, naming, patterns, resolve_arms
from sparseattn.study.preflight import check_fit
from sparseattn.study.spec import StudySpec
from sparseattn.study.study import Study, installed
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import Prepared, longest_first, read_examples

#: Training examples in a sample.
TEXTS = 256

#: Examples that are counted at a time.
_BATCH = 32


def resolve(
    spec: StudySpec, most: int, cache: TrialCache, here: bool = True
) -> tuple[Study, Sample, list[str]]:
    """Makes a study of a spec, and finds out what can be wrong with it before anything is written.

    Args:
        spec: The spec.
        most: Trials that the user allows.
        cache: Where tokenizers and data come from.
        here: Whether its trials run on this machine, so that what that cannot do is an error.

    Returns:
        The study, the texts that its patterns were counted on, and notices about the data.

    Raises:
        StudyError: The grid is too large, an arm is wrong or does not fit the model, the backend
            is not there or cannot train like this, early stopping has nothing to look at.
        DataError: The data cannot be read or do not fit the task.
        UnsupportedModelError: The model does not let its attention be replaced.
    """
    check_size(spec, most)
    needs: set[str] = set()
    for index, arm_spec in enumerate(spec.arms):
        with naming(arm_spec, index):
            needs.update(*map(arms.needs, patterns(arm_spec)))
    examples = read_examples(spec.task)
    check_fit(spec, cache)
    sample = Sample(spec, needs, cache)
    resolved = tuple(resolve_arms(spec, sample.measure, sample.longest))
    check_size(spec, most, len(resolved))
    study = Study(spec, resolved, examples.fingerprint, installed(spec, resolved))
    # A GPU that is here is the workers': what its backends can do is found out there.
    step = here and spec.backend != AUTO and not torch.cuda.is_available()
    for arm in resolved:
        try:
            sample.check(arm.pattern, arm.layers, spec.backend, step)
        except (BackendError, PlanError) as error:
            raise StudyError(f"arm {arm.name!r}: {error}") from None
    return study, sample, examples.notices


class Sample:
    """Some training texts as the model gets them, to count patterns on before a training."""

    def __init__(self, spec: StudySpec, needs: Iterable[str], cache: TrialCache) -> None:
        self._spec, self._cache = spec, cache
        prepared = self._prepared(frozenset(needs), evaluation=16)
        # An example that is cut into windows is several texts.
        some = spread_indices(len(prepared.train), TEXTS)
        chosen = longest_first(prepared.train.select(some))
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
        """What a pattern comes to; a `PlanError` if the model lacks one of the layers."""
        key = (pattern, ":" if pattern == DENSE else layers)
        if key not in self._measured:
            with sparsified(self.model, self._plan(*key), tokenizer=self.tokenizer):
                whole = measure(self.model, self.texts.batches(_BATCH))
            inside = whole.on_layers(select_indices(key[1], len(whole.heads), "layer"))
            self._measured[key] = ArmSparsity(inside.mean_degree, inside.sparsity, whole.sparsity)
        return self._measured[key]

    def check(self, pattern: str, layers: str, backend: str, step: bool) -> None:
        """Makes sure that a pattern, its placement and a backend fit the model.

        Args:
            pattern: What an arm says.
            layers: Where it stands.
            backend: What is to compute its attention.
            step: Try a step of training on two texts, since what a backend chosen by name
                cannot compute shows in a call alone.

        Raises:
            PlanError: The placement names a layer that the model lacks, or a method cannot reach
                its sparsity on these texts.
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

    def _uniform(self, method: Method) -> Plan:
        """A plan of a method's sparsity, as every method is to find one."""
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
        inputs = self._prepared(frozenset(), evaluation=TEXTS).evaluation
        return inputs.select(spread_indices(len(inputs), TEXTS))

    def _prepared(self, needs: frozenset[str], evaluation: int) -> Prepared:
        """The task with no more examples than the sample takes."""
        spec, parts = self._spec, {}
        for name, most in (("train", TEXTS), ("evaluation", evaluation)):
            subset = getattr(spec.task, name)
            count = min(most, subset.count or most)
            parts[name] = subset.model_copy(update={"count": count})
        try:
            task = spec.task.model_copy(update=parts)
            return self._cache.prepared(spec.model, task, needs, spec.pipeline)
        except DataError:  # it has fewer
            return self._cache.prepared(spec.model, spec.task, needs, spec.pipeline)
