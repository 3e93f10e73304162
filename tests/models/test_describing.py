"""What `describe` says of backends: which, and why."""

from __future__ import annotations

import pytest
import torch

import sparseattn as sa
from sparseattn import auto as cost
from sparseattn.auto import Cost
from sparseattn.errors import DataError
from tests.models.families import batch, build, run

#: Seconds: tiled costs ten times as much an entry, and more in training.
INFERENCE = {"masked": Cost(1e-4, 1e-9), "tiled": Cost(2e-4, 1e-8)}
TRAINING = {"masked": Cost(1e-4, 1e-9), "tiled": Cost(1.0, 1e-8)}
LONG = {"max_position_embeddings": 1100}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(cost, "costs", lambda s: TRAINING if s.trains else INFERENCE)


def test_each_layer_says_what_was_expected_of_each_backend():
    model = sa.sparsify(build("bert", **LONG), "neighbor(radius=2)", layers="1:")
    inputs = batch((1000,))
    with torch.no_grad():
        model(**inputs)
        report = sa.describe(model, inputs)
    first, second, third = report.layers
    assert (first.backend, second.backend) == ("masked", "tiled")
    assert first.reason == "auto: every pair is allowed"
    masked = 0.1 + 4 * 1000**2 / 1e6 * 16 / 64 / torch.get_num_threads()
    assert f"(masked {masked:.3g} ms, tiled " in second.reason
    assert second.reason == third.reason
    assert "expected" not in second.reason
    lines = str(report).splitlines()
    assert lines[-2] == f"masked on layer 0: {first.reason}"
    assert lines[-1] == f"tiled on layers 1 to 2: {second.reason}"


def test_another_batch_is_not_told_what_the_last_one_used():
    model = sa.sparsify(build("bert", **LONG), "neighbor(radius=2)")
    with torch.no_grad():
        model(**batch((100,)))
        short = sa.describe(model, batch((100,))).layers[0]
        long = sa.describe(model, batch((1000,))).layers[0]
    assert (short.backend, long.backend) == ("masked", "tiled")
    assert "at most 128 tokens" in short.reason
    assert long.reason.endswith("; a prediction: this batch was not run")


def test_what_is_expected_is_what_is_then_taken():
    for training, name in ((False, "tiled"), (True, "masked")):
        model = sa.sparsify(build("bert", **LONG), "neighbor(radius=2)").train(training)
        with torch.set_grad_enabled(training):
            expected = sa.describe(model, batch((1000,)))
            model(**batch((1000,)))
            taken = sa.describe(model, batch((1000,)))
        assert [layer.backend for layer in expected.layers] == [name] * 3
        assert [layer.backend for layer in taken.layers] == [name] * 3
        assert expected.layers[0].reason.startswith(taken.layers[0].reason)


@pytest.mark.parametrize("family", ["t5-encoder", "mpnet"])
def test_relative_positions_are_predicted(family):
    model = sa.sparsify(build(family, max_position_embeddings=600), "neighbor(radius=2)")
    expected = sa.describe(model, batch((500,))).layers[0]
    run(model, **batch((500,)))
    taken = sa.describe(model, batch((500,))).layers[0]
    assert "cannot" not in expected.reason
    assert (expected.backend, expected.reason.split(";")[0]) == (taken.backend, taken.reason)


def test_names_and_masks_are_reasons():
    named = sa.sparsify(build("bert"), "neighbor(radius=2)", backend="tiled")
    assert sa.describe(named, batch((20,))).layers[0].reason == "chosen by name"
    hooked = sa.sparsify(build("deberta"), "neighbor(radius=2)")
    assert "only one for this model family" in sa.describe(hooked, batch((20,))).layers[0].reason


@pytest.mark.parametrize(
    ("family", "limit"),
    [("bert", 160), ("roberta", 158), ("distilbert", 160), ("electra", 160), ("mpnet", 158)],
)
def test_a_text_longer_than_the_positions_is_one_line(family, limit):
    model = sa.sparsify(build(family), "neighbor(radius=2)")
    message = rf"a text of {limit + 1} tokens is more than the {limit} positions of \w+Model; cut"
    with torch.no_grad():
        model(**batch((limit,)))
        with pytest.raises(DataError, match=message):
            model(**batch((limit + 1,)))
    with pytest.raises(DataError, match=message):
        sa.describe(model, batch((limit + 1,)))
    sa.lengthen(model, to=limit + 1, plan=None)
    model(**batch((limit + 1,)))


def test_long_batches_that_fit_are_let_through():
    with torch.no_grad():
        # Rotary positions have no end, whatever the config says.
        sa.sparsify(build("modernbert"), "neighbor(radius=2)")(**batch((170,)))
        # RoBERTa's padding takes no position; BERT's own numbers may begin anew.
        roberta = sa.sparsify(build("roberta"), "neighbor(radius=2)")
        inputs = batch((158, 20))
        wide = {k: torch.nn.functional.pad(v, (0, 9), value=0) for k, v in inputs.items()}
        wide["input_ids"][wide["attention_mask"] == 0] = 1
        roberta(**wide)
        bert = sa.sparsify(build("bert"), "neighbor(radius=2)")
        places = torch.arange(200)[None] % 100
        types = torch.zeros(1, 200, dtype=torch.long)
        bert(**batch((200,)), position_ids=places, token_type_ids=types)
