"""Measuring how fast a plan makes a model: stock, sparsified and without attention, in turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from sparseattn.backend import AUTO
from sparseattn.bench.compare import differences, results
from sparseattn.bench.models import Subject, run
from sparseattn.bench.timing import alternate, bound, floor, step
from sparseattn.errors import BackendError
from sparseattn.models.state import attached_state
from sparseattn.plan import Plan

__all__ = ["Measurement", "measure"]

#: Largest difference from the `reference` backend with which a time is still worth reporting.
_TOLERANCE = 1e-3
#: Above these lengths the comparison of outputs, and that of gradients, takes the memory that
#: sparsity saves; it is made at these.
_CHECKED, _CHECKED_GRADIENTS = 2048, 1024
#: Timed rounds.
_REPEATS = 5


@dataclass(frozen=True)
class Measurement:
    """Times of one batch, in seconds.

    Attributes:
        length: Tokens a text.
        dense: The stock model.
        sparse: The sparsified model.
        rest: The model without attention: its values stand in, and gradients that cost nothing.
        backends: The backends that the layers used.
        error: Largest difference from the `reference` backend: of the outputs, and for training
            steps of the parameters' gradients, as a share of the largest number in their tensor.
        compared: Tokens of the text with which they were compared.
    """

    length: int
    dense: float
    sparse: float
    rest: float
    backends: tuple[str, ...]
    error: float
    compared: int

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
        BackendError: Outputs or gradients differ from those of the `reference` backend.
    """
    trains = subject.model.training
    sparse = subject.sparsified(plan)
    batch = subject.batch(texts, length)
    step(partial(run, sparse, batch), trains)()
    names = _chosen(sparse)
    compared = min(length, _CHECKED_GRADIENTS if trains else _CHECKED)
    error = _compared(subject, plan, compared, names[0] if len(names) == 1 else AUTO)
    with (bound if trains else floor)() as name:
        models = {
            "dense": subject.model,
            "sparse": sparse,
            "rest": subject.sparsified(plan, name),
        }
        runs = {key: step(partial(run, model, batch), trains) for key, model in models.items()}
        seconds = alternate(runs, _REPEATS, busy=busy)
    return Measurement(length, **seconds, backends=names, error=error, compared=compared)


def _chosen(sparse: Any) -> tuple[str, ...]:
    """The backends that the layers used in the last pass."""
    state = attached_state(sparse)
    chosen = state.last.chosen if state and state.last else {}
    return tuple(dict.fromkeys(name for name, _ in chosen.values()))


def _compared(subject: Subject, plan: Plan, length: int, backend: str) -> float:
    """The largest difference from the definition's results, without dropout."""
    batch = subject.batch(1, length)

    def computed(name: str) -> list[Tensor]:
        model = subject.sparsified(plan, name).eval()
        wanted = model.parameters() if subject.model.training else ()
        return results(partial(run, model, batch), wanted)

    found = differences(computed(backend), computed("reference"))
    for what, error in zip(("outputs", "gradients"), found, strict=True):
        if not error <= _TOLERANCE:
            raise BackendError(
                f"not timed: {what} of {subject.name!r} differ from the reference by {error:.2g}, "
                f"more than {_TOLERANCE:.0e}"
            )
    return max(found)
