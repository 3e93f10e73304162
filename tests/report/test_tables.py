"""Tables for the terminal, for files and for pages."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sparseattn.report import StudyData, summarise, terminal_table, write_results
from sparseattn.report.tables import arms_frame, arms_table, failures_table, seeds_table
from tests.report.fake import study


def _printed(data: StudyData, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(data))
    return console.file.getvalue()


def test_the_terminal_shows_the_arms() -> None:
    text = _printed(study())
    assert "against dense" in " ".join(text.split())
    row = next(line for line in text.splitlines() if "similarity" in line and "all" in line)
    cells = re.split(r"\s{2,}", row.strip())
    assert cells == ["similarity", "all", "74.4 ± 2.2", "−17.2 *", "82.0%", "82.0%", "47"]
    assert "corrected for 8 comparisons (Holm)" in " ".join(text.split())


def test_the_terminal_needs_80_columns() -> None:
    lines = _printed(study(), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("neighbor" in line for line in lines) == 2
    assert "…" not in "".join(lines)


def test_markup_in_names_is_text() -> None:
    data = study()
    rows = data.rows.assign(arm=data.rows["arm"].replace("neighbor", "[red]x[/red] [/]"))
    assert "[red]x[/red] [/]" in _printed(replace(data, rows=rows), 140)


def test_failed_arms_say_so() -> None:
    text = _printed(study(failures=3))
    assert next(line for line in text.splitlines() if "failed" in line).count("–") == 4


def test_one_seed_has_no_plus_minus() -> None:
    text = _printed(study(seeds=1))
    assert "±" not in text


@pytest.mark.parametrize("order", [1, -1])
def test_results_files_are_stable(tmp_path, order: int) -> None:
    data = study(failures=1)
    shuffled = data.rows[data.rows.columns[::order]]
    as_csv, as_json = write_results(shuffled, tmp_path, data.metrics)
    head = as_csv.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert head[:7] == ["arm", "layers", "seed", "status", "headline", "accuracy", "f1"]
    assert head[-1] == "digest"
    first = as_csv.read_bytes(), as_json.read_bytes()
    write_results(shuffled, tmp_path, data.metrics)
    assert (as_csv.read_bytes(), as_json.read_bytes()) == first
    back = pd.read_csv(as_csv, keep_default_na=False)
    assert list(back["digest"]) == list(data.rows["digest"])
    records = json.loads(as_json.read_text(encoding="utf-8"))
    assert records[-1]["accuracy"] is None
    assert records[0]["accuracy"] == data.rows["accuracy"][0]
    assert list(records[0]) == head


def test_columns_nobody_knows_are_kept_at_the_end(tmp_path) -> None:
    data = study()
    rows = data.rows.assign(zeta=1, alpha=2)
    head = write_results(rows, tmp_path)[0].read_text(encoding="utf-8").splitlines()[0]
    assert head.endswith("digest,accuracy,alpha,f1,zeta")


def test_the_main_table_as_numbers() -> None:
    summary = summarise(study(failures=2))
    frame = arms_frame(summary).set_index(["arm", "layers"])
    row = frame.loc[("random", ":")]
    assert row["low"] < row["mean"] < row["high"]
    assert row["change"] == pytest.approx(row["mean"] - frame.loc[("dense", ""), "mean"])
    assert row["p_holm"] >= row["p"]
    assert frame.loc[("similarity", ":"), ["seeds", "failed"]].tolist() == [1, 2]
    assert np.isnan(frame.loc[("dense", ""), "change"])


def test_no_difference_stands_beside_what_would_show() -> None:
    summary = summarise(study())
    table = arms_table(summary)
    labels = [column.label for column in table.columns]
    row = dict(zip(labels, table.rows[1], strict=True))
    detectable = summary.arms[1].comparison.outcome.detectable
    assert row["Difference"] == f"none found; detectable from {100 * detectable:.1f}"
    assert (row["Sparsity"], row["Layer sparsity"], row["Seeds"]) == ("40.0%", "80.0%", "3")
    assert len(table.rows) == 9


def test_a_column_that_no_trial_has_is_not_shown() -> None:
    data = study()
    plain = replace(data, rows=data.rows.drop(columns=["layer_sparsity"]))
    assert "Layer sparsity" not in [c.label for c in arms_table(summarise(plain)).columns]


def test_many_seeds_and_failures_are_cropped_and_counted() -> None:
    data = study(effects={"neighbor": (0.1,)}, layers=(":",), seeds=15, examples=50)
    each = seeds_table(summarise(data).arms[0])
    assert (len(each.columns), each.left_out) == (3 + 12, 3)
    rows = data.rows.assign(status="failed", reason="x\ny" * 1000)
    long = replace(data, rows=pd.concat([rows] * 3, ignore_index=True))
    table = failures_table(long)
    assert (len(table.rows), table.left_out) == (50, 40)
    assert len(table.rows[0][3]) == 300
    assert "\n" not in table.rows[0][3]


def test_cells_of_a_grid_share_a_label_and_are_joined_in_the_figure() -> None:
    from sparseattn.report.figures import sparsity_figure
    from sparseattn.report.figures.svg import WIDE
    from sparseattn.report.figures.theme import LIGHT

    data = study(layers=(":",), effects={f"learned s=0.{n}": (n / 9,) for n in (7, 8)})
    rows = data.rows.assign(
        sparsity=data.rows["arm"].map(lambda name: float(name[-3:]) if "=" in name else 0.0)
    )
    drawing = sparsity_figure(summarise(replace(data, rows=rows)))
    (axes,) = drawing.draw(WIDE, LIGHT).axes
    assert [text.get_text() for text in axes.texts] == ["learned", "dense"]
    lines = [[round(float(x), 6) for x in line.get_xdata()] for line in axes.lines]
    assert [70.0, 80.0] in lines, "from the densest to the sparsest"
    assert axes.get_xlim()[0] > 50, "the baseline, far to the left, is the line across"


def test_nearly_equal_sparsities_look_alike_in_the_figure() -> None:
    from sparseattn.report.figures import sparsity_figure
    from sparseattn.report.figures.svg import WIDE
    from sparseattn.report.figures.theme import LIGHT

    data = study(layers=(":",), effects={"near": (0.0,), "far": (-1.0,)})
    there = {"dense": 0.0, "near": 0.8456, "far": 0.8473}
    rows = data.rows.assign(sparsity=data.rows["arm"].map(there))
    drawing = sparsity_figure(summarise(replace(data, rows=rows)))
    (axes,) = drawing.draw(WIDE, LIGHT).axes
    left, right = axes.get_xlim()
    assert right - left >= 5.0
    ends = there | {"near": 0.995, "far": 0.998}
    high = sparsity_figure(
        summarise(replace(data, rows=rows.assign(sparsity=data.rows["arm"].map(ends))))
    )
    assert high.draw(WIDE, LIGHT).axes[0].get_xlim()[1] < 100.5
    marks = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert max(marks) - min(marks) < 0.05 * (right - left)
