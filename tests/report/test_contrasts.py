"""Comparisons that a study declared."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from sparseattn.report import compare, write_report
from sparseattn.report.contrasts import questions
from sparseattn.report.table import contrasts_terminal
from sparseattn.report.tables import contrasts_frame
from sparseattn.stats import holm
from tests.report.fake import study


def declared(*pairs: tuple[str, str], **values):
    return replace(study(**values), contrasts={"Does it matter which?": pairs})


def contrasts(data):
    (question,) = questions(data)
    return question.contrasts, list(question.notes)


def named(data):
    found, notes = contrasts(data)
    return [(each.a.address, each.b.address) for each in found], notes


def test_a_name_stands_for_every_placement_that_both_arms_have() -> None:
    pairs, notes = named(declared(("neighbor", "similarity")))
    assert pairs == [("neighbor@3:", "similarity@3:"), ("neighbor@:", "similarity@:")]
    assert not notes


def test_a_placement_is_compared_with_another_and_with_the_dense_model() -> None:
    pairs, _ = named(declared(("neighbor@3:", "neighbor@:"), ("neighbor@:", "dense")))
    assert pairs == [("neighbor@3:", "neighbor@:"), ("neighbor@:", "dense")]
    pairs, _ = named(declared(("dense", "neighbor")))
    assert pairs == [("dense", "neighbor@3:"), ("dense", "neighbor@:")]


def test_cells_of_a_grid_are_compared_one_by_one() -> None:
    data = declared(("learned", "uniform"), ("learned", "neighbor"))
    names = {"neighbor": "learned s=0.7", "random": "learned s=0.8", "similarity": "uniform s=0.8"}
    names["dependency"] = "learned alone"
    rows = data.rows.assign(arm=data.rows["arm"].replace(names))
    pairs, notes = named(replace(data, rows=rows))
    assert pairs == [
        ("learned s=0.8@3:", "uniform s=0.8@3:"),
        ("learned s=0.8@:", "uniform s=0.8@:"),
    ]
    assert notes == ["'neighbor' is not compared: it has no trial yet"]


def test_pairs_without_a_common_placement_are_said() -> None:
    data = declared(("neighbor", "similarity"))
    placed = {"neighbor": ":", "similarity": "3:"}
    kept = data.rows[data.rows["layers"] == data.rows["arm"].map(placed).fillna("")]
    pairs, notes = named(replace(data, rows=kept))
    assert pairs == []
    assert notes == ["'neighbor' and 'similarity' have no placement and no grid cell in common"]


def test_each_is_the_plain_comparison_corrected_for_their_number() -> None:
    data = declared(("neighbor", "similarity"), ("random", "similarity"))
    found, _ = contrasts(data)
    plain = [compare(data, each.a, each.b) for each in found]
    for each, alone in zip(found, plain, strict=True):
        assert each.comparison.outcome.difference == alone.outcome.difference
        assert each.comparison.outcome.p == alone.outcome.p
        assert each.comparison.outcome.detectable > alone.outcome.detectable
    assert [each.p for each in found] == holm([alone.outcome.p for alone in plain])
    assert {each.verdict for each in found} >= {"higher"}


def test_p_is_corrected_within_a_question() -> None:
    pairs = [("neighbor@:", "similarity@:"), ("random@:", "similarity@:")]
    both = replace(study(), contrasts={"one": pairs[:1], "two": pairs[1:]})
    for each in questions(both):
        (contrast,) = each.contrasts
        assert contrast.p == contrast.comparison.outcome.p


def test_one_declared_twice_counts_once() -> None:
    assert len(contrasts(declared(*[("neighbor@:", "random@:")] * 2))[0]) == 1


def test_pages_and_terminal_show_them(tmp_path) -> None:
    data = declared(("neighbor", "similarity"), ("no such", "dense"))
    write_report(data, tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "Declared comparisons" in text
        assert "Does it matter which?" in text
        assert "is not compared: it has no trial yet" in text
    assert 'download="contrasts.csv"' in (tmp_path / "report.html").read_text()
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(contrasts_terminal(data))
    assert "the 2 comparisons of this table (Holm)" in " ".join(console.file.getvalue().split())
    write_report(study(), tmp_path)
    assert "Declared comparisons" not in (tmp_path / "report.html").read_text()


def test_the_download_has_them_as_numbers() -> None:
    found = questions(declared(("neighbor@:", "similarity@:")))
    (row,) = contrasts_frame(found).to_dict("records")
    assert row["question"] == "Does it matter which?"
    assert (row["a"], row["b"]) == ("neighbor@:", "similarity@:")
    assert row["difference"] == pytest.approx(row["mean_a"] - row["mean_b"])
    assert row["p_holm"] == row["p"]
