"""Saying what the plan on a model comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sparseattn.accounting import Report
from sparseattn.backends import base as backends
from sparseattn.errors import PlanError
from sparseattn.models.attached import ATTRIBUTE, Attached, checked, embedding_of
from sparseattn.models.encoder import encoder_of

__all__ = ["describe"]


def describe(model: Any, batch: Mapping[str, Any]) -> Report:
    """Counts what the plan on a model allows in a batch, and says which backend computes it.

    Args:
        model: A sparsified model.
        batch: A collated batch as the model takes it, annotation columns included.

    Returns:
        The counts; `print` shows a table.

    Raises:
        PlanError: The model carries no plan.
        AnnotationError: The batch lacks an annotation that a pattern needs.
    """
    encoder = encoder_of(model)
    state: Attached | None = getattr(encoder, ATTRIBUTE, None)
    if state is None:
        raise PlanError(f"{type(model).__name__} is not sparsified; there is nothing to describe")
    tokens = state.record.tokens(checked(dict(batch)), embedding_of(encoder))
    compiled = state.compile(tokens)
    groups = state.record.plan.resolve(state.heads)
    report = Report.of(compiled, [" / ".join(str(p) for _, p in group) for group in groups])
    layers = []
    for index, (count, rule) in enumerate(zip(report.layers, compiled.layers, strict=True)):
        name, _ = _chosen(state, index)
        computed = backends.backend(name).computed(rule)
        layers.append(replace(count, computed=computed, backend=name))
    return replace(report, layers=tuple(layers))


def _chosen(state: Attached, index: int) -> tuple[str, str]:
    """The backend of a layer in the last pass, or the one that would be taken."""
    if state.current is not None and index in state.current.chosen:
        return state.current.chosen[index]
    asked = state.record.backend
    return ("masked", "not run yet") if asked == backends.AUTO else (asked, "asked for by name")
