"""What a study asks of its model, its data and this machine, found out before anything is written.

A trial finds the same out for itself, where it runs; by then the study has a folder.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from sparseattn.errors import BackendError, SparseAttnError, StudyError
from sparseattn.study.spec import ExecutorSpec, StudySpec
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_cache import TrialCache

__all__ = ["check_alone", "check_fit", "check_machine"]


def check_alone() -> None:
    """Makes sure that no launcher started this process as one of several.

    Raises:
        StudyError: One did. Each process would run other trials, and their workers, which inherit
            the launcher's variables, would train as if they were one.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise StudyError(
            f"a study is started once, and a launcher started {processes} processes of it; "
            "start it without one, and set executor.workers"
        )


def check_fit(spec: StudySpec, cache: TrialCache) -> None:
    """Makes sure that backend, model and training of a study fit together.

    Args:
        spec: The study; its data have been read before.
        cache: Where models come from.

    Raises:
        StudyError: There is no such backend, the model has no dropout to change, or early stopping
            would hold out no example or all of them.
        DataError: The model cannot be loaded or has fewer positions than `max_length`.
    """
    from sparseattn import backend as backends
    from sparseattn.study.run_trial import configured

    if spec.backend != backends.AUTO:
        try:
            backends.backend(spec.backend)
        except BackendError as error:
            raise StudyError(f"backend: {error}") from None
    cache.tokenizer(spec.model, spec.task)  # the clearest message about a model that is not there
    trial = TrialSpec(model=spec.model, task=spec.task, training=spec.training)
    configured(cache.place(spec.model), trial)
    _check_held_out(spec)


def _check_held_out(spec: StudySpec) -> None:
    from sparseattn.tasks.prepare import read_examples
    from sparseattn.training.held_out import held_out_count

    if spec.training.early_stopping is not None:
        held_out_count(spec.training, read_examples(spec.task).counts[0])


def check_machine(spec: StudySpec, executor: ExecutorSpec) -> None:
    """Makes sure that this machine can train as a study asks; nodes of a cluster find out there.

    Args:
        spec: The study.
        executor: Where its trials run.

    Raises:
        StudyError: It cannot; the message names the key, the value and the choices.
    """
    training = spec.training
    if executor.kind != "local":
        return
    training.share(executor.processes)
    if training.precision == "fp16":
        import torch

        if not torch.cuda.is_available():
            raise StudyError(
                "training.precision: 'fp16' needs a GPU, and this machine has none; "
                "choose from: fp32, bf16"
            )
    for index, name in enumerate(training.report_to):
        try:
            _check_logger(name)
        except SparseAttnError as error:
            raise StudyError(f"training.report_to[{index}]: {error}") from None


def _check_logger(name: str) -> None:
    # It has no types.
    loggers: Any = import_module("transformers.integrations")
    try:
        for made in loggers.get_reporting_integration_callbacks([name]):
            made()
    except (ImportError, RuntimeError, ValueError) as error:
        raise StudyError(" ".join(str(error).split())) from None
