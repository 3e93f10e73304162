"""The mask in the terminal and as a picture, and the catalogue."""

from __future__ import annotations

import io
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from rich.cells import cell_len
from rich.console import Console

import sparseattn as sa
from sparseattn.errors import DataError, MissingExtraError, PatternError, PlanError
from sparseattn.palette import DARK, KINDS, LIGHT
from sparseattn.pattern import catalogue
from sparseattn.show import Picture, backends_table, patterns_table, picture

FOX = "The quick brown fox jumps."


def printed(what: object, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """What a terminal shows, without colour."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    Console(file=file, width=width, highlight=False).print(what)
    return raw.getvalue().decode(encoding).splitlines()


def of_labels(*labels: str) -> Picture:
    size = len(labels)
    distance = torch.arange(size)[:, None] - torch.arange(size)
    mask = distance.abs() <= 1
    return Picture("neighbor(radius=1)", labels, mask, "counts", (("near", mask),))


def test_the_terminal_shows_labels_and_cells():
    assert printed(picture("neighbor(radius=1) | global(cls)", FOX)) == [
        "neighbor(radius=1) | global(cls)",
        "      [   q b   j   [ ",
        "      C   u r   u   S ",
        "      L t i o f m   E ",
        "      S h c w o p   P ",
        "      ] e k n x s . ] ",
        "[CLS] ████████████████",
        "the   ██████· · · · · ",
        "quick ████████· · · · ",
        "brown ██· ██████· · · ",
        "fox   ██· · ██████· · ",
        "jumps ██· · · ██████· ",
        ".     ██· · · · ██████",
        "[SEP] ██· · · · · ████",
        "over 8 real tokens: 34 of 64 pairs allowed, sparsity 46.9%, mean degree 4.2",
    ]


def test_a_terminal_without_unicode_gets_letters():
    lines = printed(of_labels("a", "b", "c"), encoding="ascii")
    assert lines[2:5] == ["a ####. ", "b ######", "c . ####"]


def test_what_does_not_fit_is_left_out_with_a_notice():
    shown = of_labels(*(f"t{i}" for i in range(100)))
    lines = printed(shown, width=80)
    assert max(map(cell_len, lines)) <= 80
    notice = " ".join(lines[-2:])
    assert "showing the first 76 of 100 tokens; 24 do not fit here (--png FILE draws" in notice
    rows = [line for line in lines if line.startswith("t") and "█" in line]
    assert len(rows) == 76
    assert rows[0] == "t0  " + "█" * 2 + "·" * 74


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    shown = of_labels("[CLS]", "internationalisation", "東京タワー東京タワー", "é", "日", "[SEP]")
    lines = printed(shown, width)
    assert max(map(cell_len, lines)) <= width


def test_long_and_wide_labels_keep_the_columns_in_line():
    lines = printed(of_labels("x", "internationalisation", "東京", "a\u0301"), width=80)
    rows = lines[-5:-1]
    assert [cell_len(row) for row in rows] == [15 + 2 * 4] * 4
    assert rows[1].startswith("international… ")
    heads = lines[1:-5]
    assert {cell_len(line) for line in heads} == {15 + 2 * 4}
    assert "京" in heads[-1]


def test_square_brackets_are_no_markup():
    lines = printed(of_labels("[red]", "[/]", "[bold"))
    assert [line.split()[0] for line in lines[-4:-1]] == ["[red]", "[/]", "[bold"]


def test_layers_and_cuts_are_told():
    shown = picture("random(degree=2)", "word " * 600, layer=-1)
    assert shown.notices == (
        "this is layer 5 of 6; others draw other keys",
        "the text was cut: the model has positions for 512 tokens, and the last 90 were left out",
    )
    assert len(shown.labels) == 512
    assert not torch.equal(shown.mask, picture("random(degree=2)", "word " * 600).mask)
    assert picture(sa.neighbor(radius=2) | sa.self(), FOX).notices == ()


def test_annotations_are_made_for_the_patterns_that_need_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path))
    pytest.importorskip("spacy")
    shown = picture("dependency()", "The unaffordable houses fell.")
    labels = list(shown.labels)
    assert labels == ["[CLS]", "the", "una", "##ff", "##ord", "##able", "houses", "fell", ".",
                      "[SEP]"]  # fmt: skip
    linked = {(labels[q], labels[k]) for q, k in shown.mask.nonzero().tolist() if q < k}
    assert {("the", "houses"), ("una", "##able"), ("##ff", "houses"), ("houses", "fell")} <= linked
    assert ("the", "fell") not in linked
    assert not any("[CLS]" in pair for pair in linked)


def test_embeddings_are_the_models():
    shown = picture("similarity(k=1)", "a cat saw another cat near paris and london")
    labels = list(shown.labels)
    found = {labels[q]: labels[k] for q, k in shown.mask.nonzero().tolist() if q != k}
    assert found["cat"] == "cat"
    assert found["paris"] == "london"
    assert "[CLS]" not in found


def test_a_pair_is_read_as_a_pair():
    shown = picture("global(sep)", "One two.", "Three.")
    assert shown.labels == ("[CLS]", "one", "two", ".", "[SEP]", "three", ".", "[SEP]")
    assert shown.mask[4].all()
    assert shown.mask[7].all()
    assert not shown.mask[1, 2]


def test_a_plans_file_is_drawn_a_head_at_a_time(tmp_path):
    file = tmp_path / "plan.json"
    plan = sa.Plan.of({"1:": "self()", "1": {"0,2": "neighbor(1)"}, "3": {0: "random(degree=2)"}})
    sa.Plan(plan.entries, shape=(12,) * 6).save(file)
    dense, window = picture(str(file), FOX), picture(str(file), FOX, layer=1, head=2)
    assert (dense.spec, dense.notices) == (
        "full()",
        ("this is layer 0 of 6; others have other patterns",),
    )
    assert torch.equal(window.mask, picture("neighbor(1)", FOX).mask)
    assert (window.spec, window.notices) == (
        "neighbor(radius=1)",
        (
            "this is layer 1 of 6; others have other patterns",
            "this is heads 0, 2 of 12; others have other patterns",
        ),
    )
    assert picture(str(file), FOX, layer=-3, head=-12).notices[1].startswith("this is head 0 of 12")
    drawn = picture(sa.Plan.load(file), FOX, layer=3)
    assert torch.equal(drawn.mask, picture("random(degree=2)", FOX, layer=3).mask)


def test_a_file_that_holds_no_plan_for_this_model(tmp_path):
    file = tmp_path / "plan.json"
    with pytest.raises(PlanError, match=r"cannot read a plan from .*plan.json: No such file"):
        picture(str(file), FOX)
    sa.Plan(sa.Plan.of("self()").entries, shape=(4, 4)).save(file)
    with pytest.raises(PlanError, match="a model of 2 layers of 4 heads, and this one has 6"):
        picture(str(file), FOX)


@pytest.mark.parametrize(
    ("words", "options", "error", "message"),
    [
        (["self()", ""], {}, DataError, "^the text is empty: ''$"),
        (["self()", "  \n\t"], {}, DataError, r"^the text is empty: '  \\n\\t'$"),
        (["self()", "text", " "], {}, DataError, "^the pair is empty: ' '$"),
        (["self()", "\udcff"], {}, DataError, r"^the text is not valid Unicode: '\\udcff'$"),
        (["self()", "\u200b\u200b"], {}, DataError, "no token that the tokenizer of 'package:"),
        (["self()", FOX], {"layer": 6}, PlanError, "^layer 6 does not exist: the model has 6, 0"),
        (["self()", FOX], {"head": 12}, PlanError, "^head 12 does not exist: the model has 12, 0"),
        # before a model is loaded
        (["neighbour(2)", FOX], {"model": "no/such"}, PatternError, "unknown pattern 'neighbour'"),
    ],
)
def test_what_cannot_be_shown(words, options, error, message):
    with pytest.raises(error, match=message):
        picture(*words, **options)


def labels_in(shown: Picture) -> tuple[list[str], list[str]]:
    axes = shown.drawing.figure().axes[0]
    return tuple([t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))


def test_a_picture_shows_the_mask_with_its_labels(tmp_path):
    shown = picture("neighbor(radius=1)", FOX)
    figure = shown.drawing.figure()
    assert figure.get_suptitle() == "neighbor(radius=1)"
    assert figure.get_supxlabel() == shown.counts
    (image,) = figure.axes[0].get_images()
    squares = np.asarray(image.get_array())
    assert np.array_equal((squares != to_rgb(LIGHT.band)).any(-1), shown.mask.numpy())
    assert labels_in(shown) == (list(shown.labels),) * 2


@pytest.mark.parametrize("dark", [False, True])
def test_a_pair_has_the_colour_of_its_kind(dark):
    """Against each pattern alone; a pair of several kinds has that of the first."""
    pattern = "neighbor(radius=1) | global(cls)"
    axes = sa.plots.mask(sa.picture(pattern, FOX), dark=dark).axes[0]
    squares = np.asarray(axes.get_images()[0].get_array())
    near = picture("neighbor(radius=1)", FOX).mask.numpy()
    column = np.zeros_like(near)
    column[0] = column[:, 0] = True
    page = DARK if dark else LIGHT
    for kind, pairs in (("near", near), ("global", column & ~near)):
        assert (squares[pairs] == to_rgb(KINDS[kind].on(page))).all()
    assert (squares[~near & ~column] == to_rgb(page.band)).all()
    marks = {line.get_marker(): len(line.get_xdata()) for line in axes.lines}
    assert marks == {"s": near.sum(), "P": (column & ~near).sum()}, "told apart in grey, too"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "near in the text", "global tokens"
    ]  # fmt: skip


def test_a_tokens_own_place_stands_out_where_no_pattern_made_it():
    shown = picture("similarity(k=1)", FOX)
    own = dict(shown.parts)["none"]
    assert torch.equal(own, torch.eye(len(shown.labels), dtype=torch.bool))
    assert torch.equal(own | dict(shown.parts)["similar"], shown.mask)
    squares = np.asarray(shown.drawing.figure().axes[0].get_images()[0].get_array())
    assert (squares[own.numpy()] != to_rgb(LIGHT.band)).any(-1).all()


def test_the_page_has_the_picture_and_its_words(tmp_path):
    hostile = "<script>alert(1)</script>", "\u202eabc", "\U0001f389", "a" * 5000
    html = of_labels(*hostile).drawing.save(tmp_path / "mask.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; attends to &lt;script&gt;" in html
    assert html.count("data:image/svg+xml;base64,") == 2, "light and dark"
    assert not re.search(r"(src|href|srcset)=\"(?!data:)", html)
    assert 'aria-describedby="words"' in html


@pytest.mark.parametrize("count", [1, 40, 119, 300])
def test_a_picture_of_any_length_keeps_within_bounds(count):
    shown = of_labels(*(f"t{i}" for i in range(count)))
    figure = shown.drawing.figure()
    assert max(figure.get_size_inches()) < 22
    across, down = labels_in(shown)
    assert across == down
    assert len(across) <= 120
    step = -(-count // len(across))
    assert across == list(shown.labels[::step])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG", ".html"])
def test_a_picture_is_written(tmp_path, suffix):
    shown = of_labels("$", "a$b^2$", "東", "\U0001f389", "very_long_label_that_is_cut")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = shown.drawing.save(tmp_path / f"mask{suffix}")
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!DOC"}
    assert path.read_bytes().startswith(starts[suffix.lower()])
    assert shown.drawing.save(tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()


def test_a_picture_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    shown = of_labels("a")
    with pytest.raises(DataError, match=r"^a picture's name ends in .*, .html; got 'mask'$"):
        shown.drawing.save("mask")
    target = tmp_path / "none" / "mask.png"
    with pytest.raises(DataError, match=r"^cannot write '.*mask.png': No such file or directory$"):
        shown.drawing.save(target)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'pip install "sparseattn\[study\]"$'):
        shown.drawing.figure()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_catalogue_has_every_pattern_and_fits(width):
    lines = printed(patterns_table(), width)
    assert max(map(cell_len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for name in catalogue:
        assert f" {name}(" in text
    wide = " ".join(printed(patterns_table(), 250))
    for kind in catalogue.values():
        for fact in (kind.formula, kind.degrees, kind.source):
            assert fact in wide
    assert re.search(r"needs:\s+embedding, ids, special", wide)


def test_signatures_show_defaults():
    signatures = {name: kind.signature() for name, kind in catalogue.items()}
    assert signatures["neighbor"] == "neighbor(radius)"
    assert signatures["bigbird"] == "bigbird(radius, random, globals=[cls], seed=0)"
    assert signatures["global"].startswith("global(cls, sep, first=0, positions=[], rows=true, ")
    assert signatures["matched_random"] == "matched_random(pattern, seed=0, per_layer=true, [keep])"
    assert signatures["full"] == "full()"


def test_the_backends_are_listed():
    from sparseattn.backend import backends

    text = " ".join(printed(backends_table(), 200))
    for name, found in backends.items():
        assert name in text
        assert found.summary in text
    assert "auto" in text
    assert "cpu: no training, on a CPU it computes no gradients" in text


def test_a_backend_says_what_this_machine_lacks(monkeypatch):
    from sparseattn.backends.kernels.cpu import launch

    assert "cpu: inference and training, compiled by numba" in " ".join(
        printed(backends_table(), 200)
    )
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    text = " ".join(printed(backends_table(), 400))
    assert "in plain PyTorch, which is slower (numba is not installed: pip install" in text
