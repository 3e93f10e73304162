"""The exportable form, in eager torch: it equals the sparse model and stays sparse."""

import pytest
import torch
import transformers

import sparseattn as sa
from sparseattn.exporting.exportable import Exportable
from sparseattn.exporting.formats import program_of
from sparseattn.models import own_attention
from tests.models.families import FAMILIES, SMALL, T5, batch, build

WINDOW = "neighbor(radius=3) | global(cls)"
PLANS = [
    WINDOW,
    "self()",
    "global(first=3, positions=[9])",
    "longformer(radius=2) | dilated(radius=2, dilation=3)",
    "elastic(share=0.2)",
    "strided(3) - neighbor(1)",
    {":": {"0,2": "neighbor(2) | global(first=2, positions=[9])", "1": "full()", "3": "block(4)"}},
]


def apart(model, exportable, lengths, side):
    columns = batch(lengths, side)
    mask = columns["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**columns)
        output = exportable(columns["input_ids"], mask.long())
    states = (output["last_hidden_state"] - expected.last_hidden_state)[mask]
    return float(states.abs().max())


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_equals_the_sparse_model(family, plan):
    model = sa.sparsify(build(family), plan)
    exportable = Exportable(model)
    for lengths in ((23, 7, 1), (70, 33, 12), (131,), (1,)):
        for side in ("right", "left"):
            assert apart(model, exportable, lengths, side) < 2e-6
    assert str(sa.plan_of(model)) == str(sa.Plan.of(plan))  # the model is as it was


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"deberta", "deberta-v2"}))
def test_every_family(family):
    model = sa.sparsify(build(family), WINDOW)
    assert apart(model, Exportable(model), (40, 9), "left") < 2e-6


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("family", ["mpnet", "t5-encoder"])
def test_biases_by_distance(family, plan):
    model = build(family)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_()
    model = sa.sparsify(model, plan)
    exportable = Exportable(model)
    for lengths in ((23, 7, 1), (150, 33, 12)):
        for side in ("right", "left"):
            assert apart(model, exportable, lengths, side) < 1e-5
    for name, buffer in exportable.named_buffers():
        if name.endswith("_sparseattn_bias"):
            buffer.zero_()
    assert (apart(model, exportable, (23, 7, 1), "right") > 1e-2) == (plan != "self()")


@pytest.mark.parametrize("name", ["MT5", "UMT5", "SwitchTransformers"])
def test_other_biases_by_distance(name):
    """Those of MT5's kin, which reach as far as a config says."""
    config = getattr(transformers, f"{name}Config")(
        **SMALL, **T5, relative_attention_max_distance=200
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}EncoderModel")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative_attention_bias" in name:
                weight.normal_()
    model = sa.sparsify(model, "dilated(5, 30) | global(cls)")
    assert apart(model, Exportable(model), (310, 9), "left") < 1e-5


def test_graphs_hold_nothing_of_length_times_length():
    def squares(family, plan):
        program = program_of(Exportable(sa.sparsify(build(family, num_hidden_layers=1), plan)))
        (ids, *_) = (n for n in program.graph.nodes if n.name == "input_ids")
        length = str(ids.meta["val"].shape[1])
        values = (node.meta.get("val") for node in program.graph.nodes)
        shapes = (
            list(map(str, value.shape)) for value in values if isinstance(value, torch.Tensor)
        )
        return [shape for shape in shapes if shape.count(length) > 1]

    for family in ("mpnet", "t5-encoder"):
        assert squares(family, "neighbor(radius=3)") == []
    assert squares("mpnet", "strided(3)")  # what is counted can be seen


def test_a_bias_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setattr(own_attention, "_BIASES", {})
    model = sa.sparsify(build("t5-encoder"), WINDOW)
    with pytest.raises(sa.errors.UnsupportedModelError, match="T5Attention cannot be exported: w"):
        Exportable(model)(**batch())


def test_a_dense_plan_is_the_stock_model():
    stock = build("bert")
    exportable = Exportable(stock, sa.Plan.of("full()"))
    assert apart(stock, exportable, (40, 9), "right") < 2e-6


def test_rows_without_columns_are_masked():
    model = sa.sparsify(build("bert"), "neighbor(2) | global(cls, columns=false)")
    columns = batch((12, 9))
    columns = {name: columns[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected, output = model(**columns), Exportable(model)(**columns)
    real = columns["attention_mask"].bool()
    output = output["last_hidden_state"][real]
    torch.testing.assert_close(output, expected.last_hidden_state[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_torch_compile_makes_one_graph(family):
    model = sa.sparsify(build(family, num_hidden_layers=1), WINDOW)
    exportable = Exportable(model)
    columns = batch((40, 9))
    columns = {name: columns[name] for name in ("input_ids", "attention_mask")}
    compiled = torch.compile(exportable, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected, output = exportable(**columns), compiled(**columns)
    assert torch.allclose(output["last_hidden_state"], expected["last_hidden_state"], atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_tracing_the_sparse_model_itself_is_refused_in_a_line(family):
    model = sa.sparsify(build(family, num_hidden_layers=1).eval(), WINDOW)
    ids = torch.randint(5, 99, (2, 24))
    for trace in (torch.export.export, torch.jit.trace):
        with pytest.raises(sa.errors.UnsupportedModelError, match=r"cannot be traced.*Exportable"):
            trace(model, (ids,))
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        output, expected = (run(ids).last_hidden_state for run in (compiled, model))
    assert torch.allclose(output, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "plan", "message"),
    [
        ("bert", "same_word()", r"same_word\(\) cannot be exported: it needs .*words"),
        ("bert", "neighbor(2) | global(sep)", "it needs separators"),
        ("bert", "neighbor(2) | segment(key=0)", "it needs separators, special"),
        ("bert", "bigbird(radius=1, random=2)", "keys are drawn or listed"),
        ("deberta", WINDOW, "its scores depend on words and on distances at once"),
        ("deberta-v2", WINDOW, "its scores depend on words and on distances at once"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(family, plan, message):
    model = sa.sparsify(build(family), plan)
    with pytest.raises(sa.errors.SparseAttnError, match=message) as caught:
        Exportable(model)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_plan_is_refused():
    with pytest.raises(sa.errors.PlanError, match="carries no plan"):
        Exportable(build("bert"))
