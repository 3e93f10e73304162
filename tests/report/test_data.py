"""What the report takes in, and how arms are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sparseattn.errors import StudyError
from sparseattn.report import ArmKey
from tests.report.fake import DATA, changed


def test_arms_stand_in_the_order_of_the_table_the_baseline_first() -> None:
    turned = replace(DATA, rows=DATA.rows.iloc[::-1])
    assert [arm.address for arm in DATA.groups][:3] == ["dense", "neighbor@3:", "neighbor@:"]
    assert [arm.address for arm in turned.groups][:2] == ["dense", "similarity@:"]
    assert DATA.reference == ArmKey("dense")
    assert DATA.find("dense") == ArmKey("dense")
    assert DATA.find("neighbor@:") == ArmKey("neighbor", ":")


def test_placements_are_said_in_words() -> None:
    words = {"": "none", ":": "all", "3:": "from 3 on", "-3:": "last 3", ":2": "first 2"}
    for layers, placement in {**words, "0,4": "0,4"}.items():
        assert ArmKey("neighbor", layers).placement == placement


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neighbour@:", r"unknown arm 'neighbour@:' \(did you mean 'neighbor@:'\?\); choose from"),
        ("neighbor", r"arm 'neighbor' has several placements; choose from: neighbor@3:, neighbor"),
        ("neighbor@5:", r"unknown arm 'neighbor@5:' .*choose from: dense, neighbor@3:"),
    ],
)
def test_arms_that_are_not_there(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        DATA.find(text)


def test_some_seeds_alone() -> None:
    assert set(DATA.only("1:").rows["seed"]) == set(DATA.rows["seed"]) - {0}
    assert set(DATA.only("0").rows["seed"]) == {0}
    assert len(DATA.only(":").rows) == len(DATA.rows)
    for wrong in ("x", "90:", "90"):
        with pytest.raises(StudyError, match=rf"no trial has a seed of '{wrong}'; write '5:' or"):
            DATA.only(wrong)


def test_trials_have_one_main_metric() -> None:
    with pytest.raises(StudyError, match="different main metrics: f1, accuracy"):
        print(changed(headline=["f1", *["accuracy"] * (len(DATA.rows) - 1)]).headline)


def test_a_baseline_without_a_finished_trial_is_no_reference() -> None:
    failed = changed(status=np.where(DATA.rows["arm"] == "dense", "failed", "done"))
    assert failed.reference is None


def test_neither_reports_nor_statistics_load_torch() -> None:
    """Not even by what they do; and a comparison loads no plotting."""
    code = (
        "import sys\n"
        "from tests.report.fake import study\n"
        "from sparseattn.report import compare\n"
        "print(compare(study(), 'similarity@:', 'dense').differs)\n"
        "print('matplotlib' in sys.modules)\n"
        "import tempfile, sparseattn.report as report\n"
        "report.write_report(study(), tempfile.mkdtemp())\n"
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False", "[]"], done.stderr
