"""Measuring how fast a plan makes a model: stock, sparsified and without attention, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparseattn.backend import AUTO
from sparseattn.bench.models import BenchModel, Times, run
from sparseattn.bench.timing import alternate, free_attention, step
from sparseattn.errors import BackendError
from sparseattn.models.state import attached_state
from sparseattn.plan import Plan

#: Largest difference from the `reference` backend with which a time is still worth reporting.
_TOLERANCE = 1e-3
#: The longest texts whose outputs, and whose gradients, are compared: `reference` computes and
#: stores every score.
_COMPARED, _COMPARED_GRADIENTS = 2048, 1024
#: Timed rounds.
_REPEATS = 5
#: No gradient is held to less than this share of the largest one: that of a key's bias is zero but
#: for rounding.
_LEAST = 1e-3


@dataclass(frozen=True)
class Measurement(Times):
    """Measured times.

    Attributes:
        error: Largest difference from the `reference` backend: of the outputs, and for training
            steps of the parameters' gradients, as a share of the largest number in their tensor.
        compared: Tokens of the text with which they were compared.
    """

    error: float
    compared: int


def measure(
    subject: BenchModel, plan: Plan, length: int, texts: int = 1, busy: bool = False
) -> Measurement:
    """Compares the sparsified model with the definition, then times it.

    Args:
        subject: The model, in training mode for training steps.
        plan: The plan.
        length: Tokens a text.
        texts: Texts a batch.
        busy: See `samples`.

    Raises:
        BackendError: Outputs or gradients differ from those of the `reference` backend.
    """
    trains = subject.model.training
    sparse = subject.sparsified(plan)
    batch = subject.batch(texts, length)
    step(partial(run, sparse, batch), trains)()
    state = attached_state(sparse)
    chosen = state.last.chosen if state and state.last else {}
    names = tuple(dict.fromkeys(name for name, _ in chosen.values()))
    compared = min(length, _COMPARED_GRADIENTS if trains else _COMPARED)
    error = _compare(subject, plan, compared, names[0] if len(names) == 1 else AUTO)
    with free_attention(trains) as name:
        models = {"dense": subject.model, "sparse": sparse, "rest": subject.sparsified(plan, name)}
        runs = {key: step(partial(run, model, batch), trains) for key, model in models.items()}
        seconds = alternate(runs, _REPEATS, busy=busy)
    return Measurement(length, **seconds, backends=names, error=error, compared=compared)


def _compare(subject: BenchModel, plan: Plan, length: int, backend: str) -> float:
    """The largest difference from the results of `reference`, without dropout."""
    batch = subject.batch(1, length)
    results = []
    for name in (backend, "reference"):
        model = subject.sparsified(plan, name).eval()
        parameters = model.parameters() if subject.model.training else ()
        results.append(output_and_gradients(partial(run, model, batch), parameters))
    errors = differences(*results)
    for what, error in zip(("outputs", "gradients"), errors, strict=True):
        if not error <= _TOLERANCE:
            raise BackendError(
                f"not timed: {what} of {subject.name!r} differ from the reference by {error:.2g}, "
                f"more than {_TOLERANCE:.0e}"
            )
    return max(errors)


def output_and_gradients(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> list[Tensor]:
    """An output, and the gradients of parameters for a fixed loss over it.

    Args:
        run: Computes the output.
        parameters: What to differentiate by; none at all for the output alone.
    """
    leaves = list(parameters)
    with torch.set_grad_enabled(bool(leaves)):
        out = run()
    if not leaves:
        return [out]
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    grads = torch.autograd.grad((out.float() * weights).sum(), leaves, allow_unused=True)
    zero = torch.zeros(1, device=out.device)
    return [out.detach(), *(zero if grad is None else grad for grad in grads)]


def differences(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """The largest differences of two results of `output_and_gradients`; NaN where there is one.

    Returns:
        Of the output, and of a gradient as a share of the largest number in its tensor.
    """
    apart = torch.tensor([float((a - b).abs().max()) for a, b in zip(ours, expected, strict=True)])
    largest = torch.tensor([float(b.abs().max()) for b in expected[1:]])
    if not len(largest):
        return float(apart[0]), 0.0
    scale = largest.clamp(min=max(_LEAST * float(largest.max()), torch.finfo(largest.dtype).tiny))
    return float(apart[0]), float((apart[1:] / scale).max())
