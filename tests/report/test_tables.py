"""Tables for the terminal, for files and for pages."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sparseattn.report import questions, summarise, terminal_table
from sparseattn.report.findings import findings
from sparseattn.report.tables import (
    arms_frame,
    arms_table,
    comparisons_frame,
    failures_table,
    seeds_table,
)
from sparseattn.report.terminal import questions_terminal
from tests.report.fake import DATA, changed, study


def printed(table: object, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def rows_of(table) -> list[dict[str, str]]:
    labels = [column.label for column in table.columns]
    return [dict(zip(labels, row, strict=True)) for row in table.rows]


def test_the_terminal_shows_the_arms() -> None:
    text = printed(terminal_table(DATA))
    row = next(line for line in text.splitlines() if "similarity" in line and "all" in line)
    cells = re.split(r"\s{2,}", row.strip())
    assert cells == ["similarity", "all", "74.4 ± 2.2", "−17.2", "lower", "82.0%", "82.0%", "47 s"]
    assert "Holm's correction for 8 comparisons" in " ".join(text.split())


@pytest.mark.parametrize("show", [terminal_table, questions_terminal])
def test_the_terminal_needs_80_columns(show) -> None:
    data = replace(DATA, contrasts={"Which?": [("neighbor", "similarity")]})
    lines = printed(show(data), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(printed(show(data), width=300).split())[-60:] in " ".join(
        " ".join(lines).split()
    )
    assert sum("neighbor" in line for line in lines) == 2
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("name", ["matched_random near", "a_name_of_twenty_four_in"])
def test_long_names_and_times_fit_80_columns(name: str) -> None:
    data = changed(arm=DATA.rows["arm"].replace("neighbor", name), seconds=296.0)
    lines = printed(terminal_table(data), width=80).splitlines()
    assert sum(line.endswith(" 4 min 56 s") for line in lines) == 9
    whole = " ".join(printed(terminal_table(data), width=300).split())
    assert whole[-60:] in " ".join(" ".join(lines).split())


def test_a_baseline_that_learned_nothing_is_said() -> None:
    told = "No run of dense does better than one answer for all examples"
    assert told in " ".join(printed(terminal_table(changed(mcc=0.0))).split())
    assert told in findings(summarise(changed(mcc=0.0)), [])[0]
    learned = changed(mcc=[0.1, *[0.0] * (len(DATA.rows) - 1)])
    assert told not in " ".join(printed(terminal_table(learned)).split())


def test_the_terminal_shows_declared_comparisons() -> None:
    pairs = {"Which?": [("neighbor", "similarity"), ("no such", "dense")]}
    text = " ".join(printed(questions_terminal(replace(DATA, contrasts=pairs))).split())
    assert "corrected for the 2 comparisons of this table (Holm)" in text
    assert "'no such' is not compared: it has no trial yet." in text
    one = {"Which?": [("neighbor@:", "random@:")]}
    text = " ".join(printed(questions_terminal(replace(study(seeds=1), contrasts=one))).split())
    assert "p is that of one comparison." in text
    assert "With one seed the test covers other examples" in text


def test_markup_in_names_is_text() -> None:
    data = changed(arm=DATA.rows["arm"].replace("neighbor", "[red]x[/red] [/]"))
    assert "[red]x[/red] [/]" in printed(terminal_table(data), 140)


def test_failed_arms_say_so_and_one_seed_has_no_interval() -> None:
    text = printed(terminal_table(study(failures=3)))
    assert next(line for line in text.splitlines() if "failed" in line).count("–") == 5
    assert "±" not in printed(terminal_table(study(seeds=1)))


def test_two_seeds_show_both_values_and_no_interval() -> None:
    data = study({"neighbor": (0.3,)}, (":",), seeds=2)
    arm = summarise(data).arms[1]
    first, second = (100 * value for value in data.rows["accuracy"][2:])
    cell = f"{(first + second) / 2:.1f} ({first:.1f}, {second:.1f})"
    assert arms_table(summarise(data)).rows[1][2] == seeds_table(arm).rows[0][1] == cell
    text = printed(terminal_table(data), 80)
    assert cell in text
    assert "±" not in text
    assert "In brackets: both values of two seeds" in " ".join(text.split())
    frame = arms_frame(summarise(data))
    assert frame["mean_high"][1] - frame["mean_low"][1] > 0.1, "the numbers are as they were"


def test_layers_are_named_where_arms_stand_on_different_ones() -> None:
    one = study({"neighbor": (0.3,), "random": (0.5,)}, ("3:",))
    assert list(map(str, one.groups)) == ["dense", "neighbor", "random"]
    assert "neighbor, layers all" in map(str, DATA.groups)


def test_the_main_table_as_numbers() -> None:
    frame = arms_frame(summarise(study(failures=2))).set_index(["arm", "layers"])
    row, dense = frame.loc[("random", ":")], frame.loc[("dense", "")]
    assert row["mean_low"] < row["mean"] < row["mean_high"]
    assert row["difference"] == pytest.approx(row["mean"] - dense["mean"])
    assert row["p_holm"] >= row["p"]
    assert frame.loc[("similarity", ":"), ["seeds", "failed"]].tolist() == [1, 2]
    assert np.isnan(dense["difference"])


def test_declared_comparisons_as_numbers() -> None:
    data = replace(DATA, contrasts={"Which?": [("neighbor@:", "similarity@:")]})
    (row,) = comparisons_frame(questions(data)).to_dict("records")
    assert (row["question"], row["a"], row["b"]) == ("Which?", "neighbor@:", "similarity@:")
    assert row["difference"] == pytest.approx(row["mean_a"] - row["mean_b"])
    assert row["p_holm"] == row["p"]


def test_no_difference_stands_beside_what_was_detectable() -> None:
    summary = summarise(DATA)
    table = arms_table(summary)
    row = rows_of(table)[1]
    detectable = summary.arms[1].comparison.result.detectable
    assert (row["Found"], row["Detectable"]) == ("none", f"{100 * detectable:.1f}")
    assert (row["Sparsity"], row["Layer sparsity"], row["Seeds"]) == ("40.0%", "80.0%", "3")
    assert len(table.rows) == 9
    assert {(row["Found"] == "none") == (row["Detectable"] != "–") for row in rows_of(table)} == {
        True
    }


def test_a_comparison_that_could_not_be_made_says_why() -> None:
    data = replace(study(failures=3), contrasts={"": [("similarity@:", "dense")]})
    (question,) = questions(data)
    assert question.answer == "No comparison could be made."
    assert question.notes == (
        "similarity, layers all and dense are not compared: arm 'similarity@:' has no finished "
        "trial to compare",
    )


def test_a_column_that_no_trial_has_is_not_shown() -> None:
    plain = replace(DATA, rows=DATA.rows.drop(columns=["layer_sparsity"]))
    row = rows_of(arms_table(summarise(plain)))[1]
    assert "Layer sparsity" not in row
    assert (row["Sparsity"], row["Block density"]) == ("40.0%", "110.0%")


def test_many_seeds_and_failures_are_cropped_and_counted() -> None:
    data = study(effects={"neighbor": (0.1,)}, layers=(":",), seeds=15, examples=50)
    each = seeds_table(summarise(data).arms[0])
    assert (len(each.columns), each.left_out) == (3 + 12, 3)
    rows = data.rows.assign(status="failed", reason="x\ny" * 1000)
    table = failures_table(replace(data, rows=pd.concat([rows] * 3, ignore_index=True)))
    assert (len(table.rows), table.left_out) == (50, 40)
    assert len(table.rows[0][3]) == 300
    assert "\n" not in table.rows[0][3]


def test_learned_degrees_show_what_discretizing_lost() -> None:
    data = study(effects={"neighbor": (0.1,)}, layers=(":",), seeds=3, examples=50)
    phases = {"headline_search": [0.8, 0.7, 0.6], "headline_discretized": [0.75, 0.7, float("nan")]}
    dense, sparse = summarise(data).arms
    learned = replace(sparse, rows=sparse.rows.assign(headline="accuracy", **phases))
    plain, rows = ([row for row in rows_of(seeds_table(arm))] for arm in (sparse, learned))
    assert rows[: len(plain)] == plain
    before, after = rows[len(plain) :]
    assert before["Metric"] == "accuracy, after the search"
    assert before["Mean"].startswith("70.0 ±")
    assert [after[f"Seed {seed}"] for seed in (0, 1, 2)] == ["75.0", "70.0", "–"]
    assert (after["Metric"], after["Mean"][:4]) == ("accuracy, discretized", "72.5")
    assert not any("search" in row["Metric"] for row in rows_of(seeds_table(dense)))
