"""A training that was interrupted ends like one that was not."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch

from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.trial import TrialSpec
from sparseattn.tasks.prepare import prepare
from sparseattn.training.spec import TrainingSpec
from sparseattn.training.train import train
from tests.tasks.material import Interruption, task_of, tiny_model, tokenizer

ROWS = [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(24)]


def stop_at(step: int, total: int):
    def progress(phase: str, share: float) -> None:
        if phase == "train" and round(share * total) == step:
            raise Interruption

    return progress


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    """Trains a model, into a new folder by default."""
    data = tmp_path_factory.mktemp("data")
    prepared = prepare(task_of(data, ROWS), tokenizer(), cache_dir=data)

    def made(spec, folder=None, progress=lambda *_: None):
        model = prepared.build_model(place, 1)
        folder = folder or tmp_path_factory.mktemp("whole")
        return model, train(model, prepared, spec, 1, folder, progress)

    return made


@pytest.fixture(scope="module")
def whole(trained):
    """Trains without checkpoints, once for each way to order and batch."""
    return cache(trained)


@pytest.mark.parametrize(
    ("grouped", "accumulation", "every", "stop"),
    [
        # 6 steps an epoch: in its middle, at its end, in the second one.
        (False, 1, 2, 4),
        (False, 1, 6, 8),
        (True, 1, 4, 11),
        # 3 steps of 2 batches an epoch.
        (True, 2, 2, 4),
    ],
)
def test_weights_are_those_of_an_uninterrupted_training(
    trained, whole, tmp_path, grouped, accumulation, every, stop
):
    spec = TrainingSpec(
        epochs=2,
        batch_size=4,
        gradient_accumulation=accumulation,
        checkpoint_steps=every,
        length_grouped=grouped,
    )
    total = 12 // accumulation
    model, run = whole(spec.model_copy(update={"checkpoint_steps": None}))
    with pytest.raises(Interruption):
        trained(spec, tmp_path, stop_at(stop, total))
    steps = []
    again, resumed = trained(spec, tmp_path, lambda _, share: steps.append(share * total))
    assert round(steps[0]) == (stop - 1) // every * every + 1
    assert resumed.steps == run.steps == total
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in run.history]


@pytest.fixture(scope="module")
def make(place, tmp_path_factory):
    """Runs a trial; with it, its result when nothing interrupts it."""
    kept, data = TrialCache(tmp_path_factory.mktemp("cache")), tmp_path_factory.mktemp("data")

    @cache
    def made(**changes):
        training = {"epochs": 2, "batch_size": 4, "checkpoint_steps": 3, **changes}
        spec = TrialSpec(
            model=str(place),
            task=task_of(data, ROWS),
            training=TrainingSpec(**training),
            pattern="neighbor(radius=1) | global(cls)",
        )
        run = partial(run_trial, spec, cache=kept)
        return run, run()

    return made


def check_same(result, whole):
    assert result.counts == whole.counts
    assert result.history == whole.history
    assert result.predictions.equals(whole.predictions)


def test_a_trial_resumes_inside_itself_past_half_a_checkpoint_and_cleans_up(make, tmp_path):
    run, whole = make()
    with pytest.raises(Interruption):
        run(folder=tmp_path, progress=stop_at(8, 12))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-6"]
    half = tmp_path / "checkpoints" / "checkpoint-9"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 9')
    steps = []
    result = run(folder=tmp_path, progress=lambda p, x: steps.append((p, round(x * 12))))
    assert ("train", 7) in steps
    assert ("train", 6) not in steps
    check_same(result, whole)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_was_trained_is_only_evaluated(make, tmp_path):
    def stop_at_evaluation(phase: str, _share: float) -> None:
        if phase == "evaluate":
            raise Interruption

    run, whole = make()
    with pytest.raises(Interruption):
        run(folder=tmp_path, progress=stop_at_evaluation)
    told = []
    result = run(folder=tmp_path, progress=lambda *step: told.append(step))
    assert [share for phase, share in told if phase == "train"] == [0.0]
    assert result.counts["steps"] == 12
    check_same(result, whole)


def test_early_stopping_keeps_count_over_an_interruption(make, tmp_path):
    run, whole = make(epochs=20, learning_rate=0.05, early_stopping=3, held_out=0.34)
    last = int(whole.counts["steps"])
    assert 9 < last < 80
    with pytest.raises(Interruption):
        # By now the loss on held-out examples has been higher twice.
        run(folder=tmp_path, progress=stop_at(last - 1, 80))
    result = run(folder=tmp_path)
    assert result.counts["steps"] == whole.counts["steps"]
    assert result.predictions.equals(whole.predictions)
