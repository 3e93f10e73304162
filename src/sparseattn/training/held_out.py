"""How many training examples early stopping holds out."""

from __future__ import annotations

from sparseattn.errors import StudyError
from sparseattn.tasks.spec import TrainingSpec

__all__ = ["held_out_count"]


def held_out_count(spec: TrainingSpec, examples: int) -> int:
    """The number of training examples that are held out.

    Args:
        spec: How to train, with early stopping.
        examples: How many there are to train on, before any is held out.

    Raises:
        StudyError: None would be held out, or none would be left.
    """
    count = round(examples * spec.held_out)
    if 0 < count < examples:
        return count
    told = f"training.held_out: {spec.held_out:g} of {examples} training examples"
    if examples < 2:
        raise StudyError(f"{told}: early_stopping needs two or more; leave it out")
    raise StudyError(
        f"{told} {'is none' if count == 0 else 'leaves none to train on'}; "
        f"choose from {1 / examples:.6g} to {1 - 1 / examples:.6g}"
    )
