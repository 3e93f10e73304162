"""Declared or post hoc, and q-values over a page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from scipy import stats

from sparseattn.report import questions, summarise
from sparseattn.report.comparison import over_page
from sparseattn.report.page import write_report
from sparseattn.report.tables import arms_frame, comparisons_frame, comparisons_table
from sparseattn.report.terminal import questions_terminal
from tests.report.fake import DATA, study
from tests.report.test_tables import printed, rows_of

PAIRS = {
    "Which?": [("neighbor", "similarity"), ("random", "dense")],
    "Again?": [("neighbor", "random")],
}
ASKED = replace(DATA, contrasts=PAIRS, added={"Which?": [("random", "dense")]})


def test_what_was_added_is_post_hoc_and_the_rest_declared() -> None:
    which, again = questions(ASKED)
    told = {(each.a.name, each.b.name): each.asked for each in which.comparisons}
    assert told == {("neighbor", "similarity"): "declared", ("random", "dense"): "post hoc"}
    assert {each.asked for each in again.comparisons} == {"declared"}
    assert [row["Asked"] for row in rows_of(comparisons_table(which.comparisons))] == [
        *["declared"] * 2,
        *["post hoc"] * 2,
    ]
    assert comparisons_frame([which])["asked"].tolist()[-1] == "post hoc"
    text = " ".join(printed(questions_terminal(ASKED)).split())
    assert "Post hoc, added when a trial had been run: random, layers from 3 on with dense" in text


def test_comparisons_with_the_baseline_are_declared_where_the_study_names_them(
    undrawn, tmp_path
) -> None:
    data = replace(DATA, contrasts={"": [("random", "dense")]})
    asked = arms_frame(summarise(data)).set_index(["arm", "layers"])["asked"]
    assert asked["random"].tolist() == ["declared"] * 2
    assert asked["neighbor"].tolist() == ["post hoc"] * 2
    write_report(data, tmp_path)
    text = (tmp_path / "report.md").read_text()
    named = "random, layers from 3 on; random, layers all"
    assert f"declared those of {named} before the first trial; the others are post hoc" in text
    write_report(DATA, tmp_path)
    assert "these comparisons: all are post hoc." in (tmp_path / "report.md").read_text()


def test_q_is_benjamini_hochbergs_over_all_comparisons_of_a_page() -> None:
    base = [each.comparison for each in summarise(ASKED).arms if each.comparison]
    tables = [base, *(each.comparisons for each in questions(ASKED))]
    found = over_page(tables)
    pairs = {frozenset((c.a, c.b)): (c.result.p, c.q) for table in found for c in table}
    # `random` with `dense` stands in two tables, and counts once.
    assert len(pairs) == 8 + 4
    p, q = zip(*pairs.values(), strict=True)
    assert q == pytest.approx(stats.false_discovery_control(p))
    assert [c.p for table in found for c in table] == [c.p for table in tables for c in table]


def test_pages_show_q_beside_holm(undrawn, tmp_path) -> None:
    write_report(replace(study(seeds=2, examples=100), contrasts=PAIRS), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("| p (Holm) | q (BH) |") == 3
    assert "declared" in text


def test_six_shared_seeds_are_paired_and_five_are_not() -> None:
    for seeds, name in ((5, "seeds and examples"), (6, "seeds and examples, paired")):
        data = study(effects={"neighbor": (0.3,)}, layers=(":",), seeds=seeds, examples=100)
        assert summarise(data).arms[1].comparison.result.test == name


def test_pairs_are_of_the_seeds_that_both_arms_have_in_any_order() -> None:
    data = study(effects={"neighbor": (0.3,)}, layers=(":",), seeds=9, examples=100)
    rows = data.rows[(data.rows["arm"] == "dense") | (data.rows["seed"] > 1)]
    shuffled = replace(data, rows=rows.iloc[::-1])
    found = summarise(shuffled).arms[1].comparison
    values = {
        arm: rows[rows["arm"] == arm].set_index("seed")["accuracy"] for arm in ("dense", "neighbor")
    }
    assert found.means[0].count == found.means[1].count == 7
    difference = (values["neighbor"] - values["dense"].loc[2:]).mean()
    assert found.result.difference == pytest.approx(difference)
    assert found.result.test.endswith("paired")


def test_the_answer_says_which_differences_are_post_hoc_and_how_many_seeds_arms_have() -> None:
    pairs = {"Late": [("random@3:", "random@:"), ("dense", "random@:")]}
    fewer = DATA.rows[~((DATA.rows["arm"] == "dense") & (DATA.rows["seed"] == 0))]
    data = replace(DATA, rows=fewer, contrasts=pairs, added={"Late": [("dense", "random@:")]})
    (question,) = questions(data)
    assert question.heading == "Late:"
    first, second = question.answer.split("; ")
    assert "post hoc" not in first
    assert second.endswith(", post hoc).")
    same, other = (row["Means"] for row in rows_of(comparisons_table(question.comparisons)))
    assert "of" not in same
    assert re.fullmatch(r"[\d.]+ \(of 2\) : [\d.]+ \(of 3\)", other)
