"""Trials that start from a model that was fine-tuned densely: trained once a seed, and kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_model, save_model

from sparseattn.files import cache_folder, writing_whole
from sparseattn.study.trial import TrialSpec
from sparseattn.study.trial_cache import TrialCache
from sparseattn.tasks.prepare import Prepared
from sparseattn.training.spec import Progress
from sparseattn.training.train import train


def finetune_dense(
    model: Any, spec: TrialSpec, prepared: Prepared, cache: TrialCache, progress: Progress
) -> None:
    """Gives a model the weights of the dense trial of a trial's seed.

    They are trained by the first trial that needs them and kept in the cache, under that trial's
    digest; other processes wait for them.

    Args:
        model: The pretrained model with the head that the seed drew; changed in place.
        spec: The trial.
        prepared: Its data.
        cache: Says where files are kept.
        progress: Called as the model is trained, with the phase `prepare`.
    """
    folder = (cache.folder or cache_folder()) / "fine-tuned"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{spec.dense.digest}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            _train(model, spec, prepared, progress)
            with writing_whole(path) as draft:
                save_model(model, str(draft))
    load_model(model, path)
    model.eval()
    # As after loading a pretrained model, whether these weights were trained here or read.
    torch.manual_seed(spec.seed)


def _train(model: Any, spec: TrialSpec, prepared: Prepared, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="sparseattn-") as folder:
        train(
            model,
            prepared,
            spec.training.model_copy(update={"report_to": ()}),
            spec.seed,
            Path(folder),
            lambda phase, share: progress("prepare", share if phase == "train" else 1.0),
        )
