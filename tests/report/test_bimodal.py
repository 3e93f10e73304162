"""Tasks that a run learns or does not: what reports count, and what they leave unsaid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sparseattn.report import StudyData, compare, questions, summarise, terminal_table
from sparseattn.report.findings import findings
from sparseattn.report.page import write_report
from sparseattn.report.tables import arms_frame, arms_table, comparisons_table
from sparseattn.report.terminal import questions_terminal
from tests.report.fake import SPEC
from tests.report.test_tables import printed, rows_of

#: F1 of each arm's runs, as SQuAD has them.
RUNS = {
    "dense": (0.70, 0.69, 0.70),
    "good": (0.61, 0.60, 0.62),
    "mixed": (0.14, 0.55, 0.57),
    "bad": (0.12, 0.10, 0.18),
}
PAIRS = {"Which?": [("good", "bad"), ("good", "dense"), ("mixed", "bad"), ("bad", "mixed")]}


def _study(runs: dict[str, tuple[float, ...]] = RUNS, **changes: object) -> StudyData:
    draw, rows, kept = np.random.default_rng(0), [], {}
    hard = draw.normal(0, 0.1, 400)
    for arm, values in runs.items():
        for seed, value in enumerate(values):
            score = hard + draw.normal(0, 0.05, 400)
            digest = f"{arm}{seed}"
            kept[digest] = pd.DataFrame(
                {"example": range(400), "label": "x", "prediction": "x", "score": score}
            )
            kept[digest]["score"] += value - score.mean()
            row = {"digest": digest, "arm": arm, "layers": "" if arm == "dense" else ":"}
            rows.append({**row, "seed": seed, "status": "done", "headline": "f1", "f1": value})
    spec = {**SPEC, "task": {**SPEC["task"], "kind": "question-answering"}}
    frame = pd.DataFrame(rows)
    return replace(
        StudyData("squad", "", spec, frame, kept.__getitem__, ("f1",), contrasts=PAIRS), **changes
    )


def test_the_threshold_is_half_of_the_dense_models_best_run() -> None:
    assert _study().threshold == pytest.approx(0.35)


def test_an_arm_that_never_learned_is_not_the_sparsest_without_a_loss() -> None:
    """Three runs of three against none have no interval: chance among many may do that."""
    data = _study({**RUNS, "small": (0.69, 0.70, 0.70)})
    sparsity = data.rows["arm"].map({"dense": 0.0, "bad": 0.95, "mixed": 0.9, "small": 0.5})
    data = replace(data, rows=data.rows.assign(sparsity=sparsity.fillna(0.4)))
    first = findings(summarise(data), [])[0]
    assert "whose interval excludes a loss of 5 points is small, at" in first


def test_a_study_may_state_the_threshold() -> None:
    assert _study(learned_at=0.58).threshold == 0.58
    found = compare(_study(learned_at=0.58), "mixed", "bad")
    assert [each.runs for each in found.learned] == [0, 0]


def test_other_tasks_and_runs_with_one_mode_have_no_threshold() -> None:
    data = _study()
    assert replace(data, spec={"task": {"kind": "token-classification"}}).threshold is None
    assert _study({"dense": RUNS["dense"], "good": RUNS["good"]}).threshold is None
    other = data.rows.assign(arm=data.rows["arm"].replace("dense", "other"))
    assert replace(data, rows=other).threshold is None


def test_where_not_all_runs_learned_it_they_are_counted() -> None:
    found = compare(_study(), "good", "bad")
    assert "Boschloo" in found.result.test
    assert found.result.p == pytest.approx(1 / 32)
    assert "Runs that learned the task: 3 of 3 (61.0) of good, 0 of 3 of bad" in str(found)
    assert "interval" not in str(found)
    assert "Detectable" not in str(compare(_study(), "mixed", "bad"))


def test_where_all_runs_learned_it_their_spread_is_tested() -> None:
    found = compare(_study(), "good", "dense")
    assert found.result.test == "seeds and examples"
    assert [each.runs for each in found.learned] == [3, 3]


def test_one_run_of_each_arm_is_tested_over_examples() -> None:
    one = {arm: values[:1] for arm, values in RUNS.items()}
    found = compare(_study(one), "good", "bad")
    assert (found.result.test, found.learned[0].of) == ("paired bootstrap", 1)


def test_tables_say_how_many_learned_it_and_give_no_interval() -> None:
    arms = {row["Arm"]: row for row in rows_of(arms_table(summarise(_study())))}
    assert [arms[arm]["Learned it"] for arm in RUNS] == [
        "3 of 3 (69.7)",
        "3 of 3 (61.0)",
        "2 of 3 (56.0)",
        "0 of 3",
    ]
    assert arms["mixed"]["F1"] == "42.0"  # no ± over two modes
    assert arms["bad"]["95% interval"] == arms["bad"]["Detectable"] == "–"
    first = rows_of(comparisons_table(questions(_study())[0].comparisons))[0]
    assert first["Learned it"] == "3 of 3 (61.0) : 0 of 3"
    frame = arms_frame(summarise(_study())).set_index("arm")
    assert frame.loc["mixed", ["learned", "mean_learned"]].tolist() == [2, pytest.approx(0.56)]


@pytest.mark.parametrize("show", [terminal_table, questions_terminal])
def test_counts_fit_the_terminal(show) -> None:
    lines = printed(show(_study()), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "2 of 3" in " ".join(" ".join(lines).split())


def test_the_page_states_the_rule(undrawn, tmp_path) -> None:
    write_report(_study(), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "A run has learned the task where its f1 is at least 35.0." in text
    assert "3 of 3 (61.0) : 0 of 3" in text
