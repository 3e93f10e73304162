"""What the report takes in, and how arms are named."""

from __future__ import annotations

import doctest
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from sparseattn.errors import StudyError
from sparseattn.report import ArmKey
from tests.report.fake import study


def test_arms_stand_in_the_order_of_the_table_the_baseline_first() -> None:
    data = study()
    turned = replace(data, rows=data.rows.iloc[::-1])
    assert [arm.address for arm in data.groups][:3] == ["dense", "neighbor@3:", "neighbor@:"]
    assert [arm.address for arm in turned.groups][:2] == ["dense", "similarity@:"]
    assert data.reference == ArmKey("dense")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("", "none"),
        (":", "all"),
        ("3:", "from 3 on"),
        ("-3:", "last 3"),
        (":2", "first 2"),
        ("0,4", "0,4"),
    ],
)
def test_placements_are_said_in_words(layers: str, words: str) -> None:
    assert ArmKey("neighbor", layers).placement == words


def test_arms_are_found_by_name_or_address() -> None:
    data = study()
    assert data.find("dense") == ArmKey("dense")
    assert data.find("neighbor@:") == ArmKey("neighbor", ":")


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
        study().find(text)


def test_some_seeds_alone() -> None:
    data = study()
    assert set(data.only("1:").rows["seed"]) == set(data.rows["seed"]) - {0}
    assert set(data.only("0").rows["seed"]) == {0}
    assert len(data.only(":").rows) == len(data.rows)
    for wrong in ("x", "90:", "90"):
        with pytest.raises(StudyError, match=rf"no trial has a seed of '{wrong}'; write '5:' or"):
            data.only(wrong)


def test_a_missing_column_is_named() -> None:
    data = study()
    with pytest.raises(StudyError, match=r"results lack the columns digest, seed; they have: arm"):
        replace(data, rows=data.rows.drop(columns=["digest", "seed"]), metrics=())


def test_trials_must_share_a_main_metric() -> None:
    data = study()
    rows = data.rows.assign(headline=["f1", *["accuracy"] * (len(data.rows) - 1)])
    with pytest.raises(StudyError, match="different main metrics: f1, accuracy"):
        replace(data, rows=rows, metrics=())


def test_metrics_are_found_and_the_main_one_is_first() -> None:
    data = study()
    assert data.metrics == ("accuracy", "f1")
    again = replace(data, rows=data.rows.assign(headline="f1"), metrics=())
    assert again.metrics == ("f1", "accuracy")
    assert replace(again, metrics=("accuracy", "f1")).metrics == ("f1", "accuracy")


def test_a_baseline_without_a_finished_trial_is_no_reference() -> None:
    data = study()
    rows = data.rows.assign(status=np.where(data.rows["arm"] == "dense", "failed", "done"))
    assert replace(data, rows=rows).reference is None
    assert replace(data, baseline="neighbor").reference is None
    assert replace(data, baseline="neighbor@:").reference == ArmKey("neighbor", ":")


def test_missing_layers_are_none() -> None:
    data = study()
    rows = data.rows.assign(layers=data.rows["layers"].replace("", None))
    assert replace(data, rows=rows).reference == ArmKey("dense")
    assert isinstance(rows["layers"], pd.Series)


MODULES = (
    "report.text",
    "study.arms",
    "stats",
    "stats.intervals",
    "stats.result",
    "stats.single_seed",
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    failed, tried = doctest.testmod(import_module(f"sparseattn.{module}"))
    assert tried
    assert not failed


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
