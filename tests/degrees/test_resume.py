"""Learning that is stopped goes on, and comes to the same end."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import TrainerCallback

from sparseattn.degrees.learn import learn_degrees
from tests.degrees.small import arguments, classifier, collate, rows

KEEPS = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}


class Stop(TrainerCallback):
    """Stops at a step of a phase, as Ctrl-C does; counts the steps that were taken."""

    def __init__(self, phase="", step=0):
        self.phase, self.step, self.taken = phase, step, []

    def on_step_end(self, args, state, control, **kwargs):
        phase = args.output_dir.rsplit("/", 1)[-1]
        self.taken.append((phase, state.global_step))
        if phase == self.phase and state.global_step == self.step:
            raise KeyboardInterrupt


def learn(folder, stop, sparsity=0.7):
    return learn_degrees(
        classifier(),
        rows(),
        sparsity,
        arguments=arguments(folder, 12, **KEEPS),
        trainer={"data_collator": collate, "eval_dataset": rows(16, 9), "callbacks": [stop]},
    )


def same(one, other):
    assert one.plan == other.plan
    torch.testing.assert_close(one.chances, other.chances)
    for left, right in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(left, right)
    assert len(one.history) == len(other.history)
    for left, right in zip(one.history, other.history, strict=True):
        assert left == pytest.approx(right)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("undisturbed"), Stop())


@pytest.mark.parametrize(
    ("phase", "step", "again"),
    [
        ("search-0.7", 1, ("search-0.7", 1)),  # before the first checkpoint
        ("search-0.7", 3, ("search-0.7", 3)),
        ("finetune-0.7", 3, ("finetune-0.7", 3)),
    ],
)
def test_what_was_stopped_goes_on(tmp_path, undisturbed, phase, step, again):
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, Stop(phase, step))
    stop = Stop()
    same(learn(tmp_path, stop), undisturbed)
    assert stop.taken[0] == again


def test_what_is_finished_is_read(tmp_path, undisturbed):
    learn(tmp_path, Stop())
    stop = Stop()
    found = learn(tmp_path, stop)
    same(found, undisturbed)
    assert not stop.taken
    assert found.metrics["final"]["eval_loss"] == undisturbed.metrics["final"]["eval_loss"]


def test_a_checkpoint_without_its_budget_is_not_resumed_from(tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, Stop("search-0.7", 3))
    (tmp_path / "search-0.7" / "checkpoint-2" / "sparseattn_budget.json").unlink()
    stop = Stop()
    same(learn(tmp_path, stop), undisturbed)
    assert stop.taken[0] == ("search-0.7", 1)


def test_several_targets_go_on(tmp_path):
    targets = [0.6, 0.7]
    whole = learn(tmp_path / "whole", Stop(), targets)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "stopped", Stop("search-0.7", 3), targets)
    stop = Stop()
    for one, other in zip(learn(tmp_path / "stopped", stop, targets), whole, strict=True):
        same(one, other)
    assert stop.taken[0] == ("search-0.7", 3)


class StopAfterSearch(Stop):
    """Stops when the last checkpoint of the search is there, and no record that it is over."""

    def on_train_end(self, args, state, control, **kwargs):
        if "search" in args.output_dir:
            raise KeyboardInterrupt


def test_a_search_that_took_all_steps_takes_no_more(tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path, StopAfterSearch())
    assert (tmp_path / "search-0.7" / "checkpoint-6").is_dir()
    assert not (tmp_path / "search-0.7" / "done.json").exists()
    same(learn(tmp_path, Stop()), undisturbed)


def test_a_full_disk_is_named_and_loses_nothing(tmp_path, undisturbed, disk_of):
    full = disk_of("48k")
    with pytest.raises(OSError, match="No space left on device") as raised:
        learn(full, Stop())
    assert raised.value.filename == str(full / "search-0.7")
    shutil.copytree(full, tmp_path / "larger")
    same(learn(tmp_path / "larger", Stop()), undisturbed)


def test_results_that_a_disk_has_no_room_for(undisturbed, disk_of):
    full = disk_of("24k")
    with pytest.raises(OSError, match="No space left on device") as raised:
        undisturbed.save(full)
    assert raised.value.filename == str(full)


def test_nothing_is_kept_without_checkpoints(tmp_path):
    options = {"arguments": arguments(tmp_path, 4), "trainer": {"data_collator": collate}}
    learn_degrees(classifier(), rows(), 0.7, **options)
    assert not list(tmp_path.iterdir())
