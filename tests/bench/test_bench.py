"""`sparseattn bench`: runs in turns, the forecast's arithmetic, the measured table, the errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, RobertaConfig
from typer.testing import CliRunner

import sparseattn as sa
from sparseattn import auto
from sparseattn.backend import backends
from sparseattn.bench import measure, predict, timing
from sparseattn.bench.measure import differences
from sparseattn.bench.models import load, run
from sparseattn.bench.predict import Predictor, pays_from
from sparseattn.cli.bench import app
from sparseattn.errors import BackendError, UnsupportedModelError
from tests.backends.test_conformance import case, gradients
from tests.models.families import build

PLAN = sa.Plan.of("neighbor(radius=8) | global(cls)")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "cache"))
    clear = auto.costs.cache_clear
    clear()
    yield
    clear()


@pytest.fixture
def quick(monkeypatch):
    """Each time is that of one run."""
    monkeypatch.setattr(predict, "_REPEATS", 1)
    monkeypatch.setattr(predict, "_REPEATS_MANY", 1)
    monkeypatch.setattr(measure, "_REPEATS", 1)
    monkeypatch.setattr(predict, "_LADDER", (128, 512))


def bench(*arguments):
    """The lines that a command prints."""
    plan = ["--plan", "neighbor(radius=8)"]
    result = CliRunner().invoke(app, [*arguments, *plan], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=512,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.mark.parametrize(
    ("most", "order", "slow"), [({}, "ababab", 2), ({"b": 1}, "aaba", 1)], ids=["all", "one slow"]
)
def test_runs_take_turns_and_warm_up_is_not_counted(monkeypatch, most, order, slow):
    calls, clock = [], iter(range(100))
    monkeypatch.setattr(timing, "perf_counter", lambda: float(next(clock)))
    runs = {key: lambda key=key: calls.append(key) for key in "ab"}
    times = timing.samples(runs, 2, warm=1, most=most)
    assert times == {"a": [1.0] * 2, "b": [1.0] * slow}
    assert "".join(calls) == order


def test_processor_time_leaves_waiting_out(monkeypatch):
    import time

    seconds = timing.alternate({"wait": lambda: time.sleep(0.05)}, 1, busy=True)
    assert seconds["wait"] < 0.02


def test_the_floor_computes_no_attention_and_is_not_left_registered(name):
    subject = load(name, 16, trains=False)
    batch = subject.batch(1, 16)
    with timing.free_attention(trains=False) as floor, torch.no_grad():
        model = subject.sparsified(PLAN, floor)
        first = run(model, batch)
        for layer in model.encoder.layer:
            layer.attention.self.query.weight.zero_()
        assert torch.equal(run(model, batch), first)
    assert floor not in backends


def test_the_bound_passes_gradients_to_queries_and_keys():
    call = case("full()", 7)
    with timing.free_attention(trains=True) as bound:
        out, grads = gradients(backends[bound], call)
    assert torch.equal(out, call.value)
    assert all(torch.equal(grad, grads[0]) and grad.any() for grad in grads)
    assert bound not in backends


def fixed(monkeypatch, names):
    """A predictor whose every measurement is one second for each 1e6 entries or 1e3 tokens."""
    monkeypatch.setattr(predict, "select", lambda *_: (backends[names], ""))
    monkeypatch.setattr(predict.Predictor, "_rest", predict._Curve((1e3, 1.0), (2e3, 2.0)))
    monkeypatch.setattr(predict.Predictor, "_dense", predict._Curve((1e6, 1.0), (2e6, 2.0)))
    monkeypatch.setattr(
        predict.Predictor, "_sparse", lambda *_: predict._Curve((1e6, 1.0), (2e6, 2.0))
    )


def test_a_forecast_adds_up(monkeypatch, name):
    fixed(monkeypatch, "tiled")
    subject = load(name, 256, trains=False)
    forecast = Predictor(subject, PLAN, texts=2).at(256)
    entries = 2 * 2 * 256**2
    rules = PLAN.compile(sa.TokenBatch.of_lengths(256, 256), [2, 2]).layers
    computed = backends["tiled"].computed(rules[0])
    assert forecast.rest == pytest.approx(0.512)
    assert forecast.dense == pytest.approx(0.512 + 2 * max(entries / 1e6, 0.1))
    assert forecast.sparse == pytest.approx(0.512 + 2 * max(computed / 1e6, 0.1))
    assert forecast.share == pytest.approx(1 - 0.512 / forecast.dense)
    assert forecast.backends == ("tiled",)


def test_where_a_plan_begins_to_pay(monkeypatch, name):
    fixed(monkeypatch, "tiled")
    subject = load(name, 256, trains=False)
    start = pays_from(Predictor(subject, PLAN))
    assert start is not None
    assert 128 < start < 4096
    fixed(monkeypatch, "masked")
    assert pays_from(Predictor(subject, PLAN)) is None


def test_masked_attention_is_never_forecast_to_be_faster(monkeypatch, name):
    """It does what dense attention does, and more: less time is noise."""
    fixed(monkeypatch, "masked")
    quick = predict._Curve((1e6, 0.5), (2e6, 1.0))
    monkeypatch.setattr(predict.Predictor, "_sparse", lambda *_: quick)
    forecast = Predictor(load(name, 512, trains=False), PLAN).at(128)
    assert forecast.backends == ("masked",)
    assert forecast.speedup == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("command", ["predict", "run"])
def test_tables(name, command, train):
    lines = bench(command, name, "--lengths", "64,300", "--batch", "2", *["--train"] * train)
    assert ("training step" in lines[0]) == train
    rows = [line.split() for line in lines[2:4]]
    assert [row[0] for row in rows] == ["64", "300"]
    assert rows[0][-1] == "masked"
    for row in rows:
        # Milliseconds are rounded to tenths, of which a tiny model takes few.
        stock, sparse, speedup = (float(cell.rstrip("x")) for cell in (row[1], row[2], row[5]))
        assert (stock - 0.05) / (sparse + 0.05) - 0.01 <= speedup
        assert speedup <= (stock + 0.05) / max(sparse - 0.05, 1e-9) + 0.01


@pytest.mark.usefixtures("quick")
def test_processor_time_is_named_in_the_table(name):
    threads = torch.get_num_threads()
    try:
        assert "processor time of 1 thread" in bench("run", name, "--lengths", "16", "--busy")[0]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("what", "factor"), [("outputs", 2), ("gradients", 1)])
def test_wrong_results_are_not_timed(monkeypatch, name, what, factor):
    masked = type(backends["masked"])
    attend = masked.attend

    def wrong(self, call):
        states = {x: getattr(call, x).detach() for x in ("query", "key")}
        return factor * attend(self, replace(call, **states))

    monkeypatch.setattr(masked, "attend", wrong)
    if what == "gradients":
        assert measure.measure(load(name, 100, trains=False), PLAN, 100).error < 1e-5
    subject = load(name, 100, trains=what == "gradients")
    with pytest.raises(BackendError, match=rf"not timed: {what} of .* differ from the reference"):
        measure.measure(subject, PLAN, 100)


@pytest.mark.usefixtures("quick")
def test_the_backend_that_is_timed_is_the_one_compared(monkeypatch, name):
    """Also where `auto` would take another one for the shorter text of the comparison."""
    monkeypatch.setattr(measure, "_COMPARED", 50)
    tiled = backends["tiled"]
    monkeypatch.setattr(
        auto,
        "choose",
        lambda call: (backends["tiled" if call.rule.length > 50 else "masked"], ""),
    )
    subject = load(name, 100, trains=False)
    measured = measure.measure(subject, PLAN, 100)
    assert (measured.backends, measured.compared) == (("tiled",), 50)
    monkeypatch.setattr(type(tiled), "attend", lambda self, call: call.value)
    with pytest.raises(BackendError, match="not timed"):
        measure.measure(subject, PLAN, 100)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("train", "start"),
    [
        (False, "outputs compared with the reference backend at 40, 60 tokens: largest difference"),
        (True, "outputs and gradients compared with the reference backend at 40, 50 tokens: "),
    ],
)
def test_the_measured_table_ends_with_what_was_compared(monkeypatch, name, train, start):
    monkeypatch.setattr(measure, "_COMPARED", 60)
    monkeypatch.setattr(measure, "_COMPARED_GRADIENTS", 50)
    last = bench("run", name, "--lengths", "40,100", *["--train"] * train)[-1]
    assert last.startswith(start)
    assert 0 < float(last.split()[-1]) < 1e-4


@pytest.mark.usefixtures("quick")
def test_a_row_is_shown_before_the_next_is_measured(monkeypatch, name):
    whole = measure.measure

    def first_alone(subject, plan, length, *more):
        if length == 40:
            return whole(subject, plan, length, *more)
        raise BackendError("stopped")

    monkeypatch.setattr(measure, "measure", first_alone)
    result = CliRunner().invoke(app, ["run", name, "--plan", "self()", "--lengths", "40,60"])
    assert isinstance(result.exception, BackendError)
    assert result.stdout.splitlines()[-1].startswith("    40 ")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("command", ["predict", "run"])
@pytest.mark.parametrize("longest", [512, 600])
def test_a_model_gets_the_positions_that_it_lacks(name, command, longest):
    first, *others = bench(command, name, "--lengths", f"64,{longest}")
    note = f"note: {name} has 512 positions; longer texts are timed with more"
    assert first.startswith(note) == (longest > 512)
    assert "note" not in " ".join(others)


def test_more_tokens_than_positions(name, tmp_path):
    subject = load(name, 600, trains=False)
    assert subject.positions == 512
    assert run(subject.model, subject.batch(1, 600)).shape == (1, 600, 32)
    RobertaConfig(
        vocab_size=50, max_position_embeddings=514, hidden_size=32, num_attention_heads=2,
        num_hidden_layers=1, intermediate_size=32,
    ).save_pretrained(tmp_path)  # fmt: skip
    subject = load(str(tmp_path), 513, trains=False)
    assert subject.positions == 512
    assert run(subject.model, subject.batch(1, 513)).shape == (1, 513, 32)


def test_a_model_without_a_limit_has_none(tmp_path):
    config = build("t5-encoder").config
    del config.max_position_embeddings
    config.save_pretrained(tmp_path)
    assert load(str(tmp_path), 300, trains=False).positions is None


def test_no_such_model(tmp_path):
    with pytest.raises(UnsupportedModelError, match="cannot read the config of"):
        load(str(tmp_path / "none"), 10, trains=False)


@pytest.mark.parametrize("lengths", ["", "12,x", "0"])
def test_lengths_that_are_none(name, lengths):
    result = CliRunner().invoke(app, ["run", name, "--plan", "self()", "--lengths", lengths])
    assert result.exit_code == 2
    assert "is no list of lengths" in result.output


def test_a_plan_that_reads_a_parse_is_refused_before_a_model_is_built():
    result = CliRunner().invoke(app, ["predict", "no/model", "--plan", "dependency()"])
    assert "random tokens, which have no heads, words: dependency()" in str(result.exception)


def test_the_stock_model_carries_no_plan(name, tmp_path):
    plain = load(name, 64, trains=False).model
    sa.sparsify(plain, "neighbor(radius=1)").save_pretrained(tmp_path)
    with torch.no_grad():
        subject = load(str(tmp_path), 64, trains=False)
        batch = subject.batch(1, 64)
        stock = run(subject.model, batch)
        assert torch.equal(run(subject.sparsified(sa.Plan.of("full()"), "masked"), batch), stock)
        assert not torch.allclose(run(subject.sparsified(PLAN), batch), stock, atol=1e-3)


def test_models_that_take_only_a_mask_are_not_forecast(tmp_path):
    build("deberta").config.save_pretrained(tmp_path)
    subject = load(str(tmp_path), 64, trains=False)
    with pytest.raises(UnsupportedModelError, match="so no plan makes it faster"):
        Predictor(subject, PLAN).at(64)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_models_with_few_positions_are_forecast(family, tmp_path):
    config = build(family).config
    config.save_pretrained(tmp_path)
    for length in (150, 200):
        subject = load(str(tmp_path), length, trains=False)
        assert Predictor(subject, PLAN).at(length).rest > 0


EXPECTED = [torch.ones(3), torch.tensor([0.0, 10.0]), torch.tensor([1e-6])]


def test_outputs_count_as_they_are_and_gradients_as_a_share():
    ours = [EXPECTED[0] + 0.5, torch.tensor([1.0, 10.0]), EXPECTED[2]]
    assert differences(ours, EXPECTED) == (0.5, 0.10000000149011612)
    assert differences(EXPECTED[:1], EXPECTED[:1]) == (0.0, 0.0)


def test_a_gradient_that_is_zero_but_for_rounding_may_round_otherwise():
    ours = [EXPECTED[0], EXPECTED[1], torch.tensor([2e-6])]
    assert differences(ours, EXPECTED)[1] < 1e-3


def test_what_is_no_number_is_not_lost():
    for place in range(3):
        ours = [tensor.clone() for tensor in EXPECTED]
        ours[place][-1] = math.nan
        assert math.isnan(differences(ours, EXPECTED)[min(place, 1)])
