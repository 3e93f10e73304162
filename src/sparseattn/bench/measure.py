"""Measuring how fast a plan makes a model: stock, sparsified and without attention, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from sparseattn.bench.models import Subject, run
from sparseattn.bench.timing import alternate, floor, step
from sparseattn.errors import BackendError
from sparseattn.models.attached import attached
from sparseattn.plan import Plan

__all__ = ["Measurement", "measure"]

#: Largest difference from the `reference` backend with which a time is still worth reporting.
_TOLERANCE = 1e-3
#: Above this length the comparison takes the memory that sparsity saves; it is made at this one.
_CHECKED = 2048
#: Timed rounds.
_REPEATS = 5


@dataclass(frozen=True)
class Measurement:
    """Times of one batch, in seconds.

    Attributes:
        length: Tokens a text.
        dense: The stock model.
        sparse: The sparsified model.
        rest: The model with attention replaced by its values.
        backends: The backends that the layers used.
        error: Largest difference of the outputs from those of the `reference` backend.
    """

    length: int
    dense: float
    sparse: float
    rest: float
    backends: tuple[str, ...]
    error: float

    @property
    def speedup(self) -> float:
        """How many times faster the sparsified model is."""
        return self.dense / self.sparse

    @property
    def share(self) -> float:
        """Share of the stock model's time that attention takes, in [0, 1]."""
        return 1 - self.rest / self.dense


def measure(
    subject: Subject, plan: Plan, length: int, texts: int = 1, busy: bool = False
) -> Measurement:
    """Checks the sparsified model against the definition, then times it.

    Args:
        subject: The model, in training mode for training steps.
        plan: The plan.
        length: Tokens a text.
        texts: Texts a batch.
        busy: See `alternate`.

    Raises:
        BackendError: The outputs differ from those of the `reference` backend.
    """
    trains = subject.model.training
    sparse = subject.sparsified(plan)
    error = _compared(subject, plan, min(length, _CHECKED))
    batch = subject.batch(texts, length)
    with floor() as name:
        models = {
            "dense": subject.model,
            "sparse": sparse,
            "rest": subject.sparsified(plan, name),
        }
        runs = {key: step(partial(run, model, batch), trains) for key, model in models.items()}
        seconds = alternate(runs, _REPEATS, busy=busy)
    state = attached(sparse)
    chosen = state.current.chosen if state and state.current else {}
    names = tuple(dict.fromkeys(name for name, _ in chosen.values()))
    return Measurement(length, **seconds, backends=names, error=error)


def _compared(subject: Subject, plan: Plan, length: int) -> float:
    """The largest difference of the outputs from the definition's, without dropout."""
    batch = subject.batch(1, length)
    with torch.no_grad():
        results = [
            run(subject.sparsified(plan, name).eval(), batch) for name in ("reference", "auto")
        ]
    error = float((results[0] - results[1]).abs().max())
    if not error <= _TOLERANCE:
        raise BackendError(
            f"not timed: outputs of {subject.name!r} differ from the reference by {error:.2g}, "
            f"more than {_TOLERANCE:.0e}"
        )
    return error
