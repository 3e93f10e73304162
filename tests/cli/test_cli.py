"""The command line: what it prints, how it fails, and what it does not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparseattn
from tests.models.families import build


def test_show(run, tmp_path):
    path, page = tmp_path / "mask.png", tmp_path / "mask.html"
    code, out, err = run("show", "neighbor(2) | global(cls)", "The quick brown fox.", "--png",
                         str(path), "--html", str(page))  # fmt: skip
    assert (code, err) == (0, "")
    assert "fox   ██· ████████" in out
    assert "over 7 real tokens: 37 of 49 pairs allowed, sparsity 24.5%, mean degree 5.3" in out
    assert f"wrote {path}" in out.replace("\n", "")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "fox attends to [CLS] quick brown fox . [SEP]" in page.read_text(encoding="utf-8")
    code, _, err = run("show", "self()", "One.", "--svg", str(path))
    assert code == 2
    assert "name ends in .svg; got" in err


def test_show_takes_a_pair_a_layer_and_a_model(run):
    from sparseattn.models.names import DEFAULT, resolve

    code, out, _ = run("show", "random(1)", "One.", "--pair", "Two.", "--layer", "-1", "--model",
                       str(resolve(DEFAULT)))  # fmt: skip
    assert code == 0
    assert "two " in out
    assert "this is layer 5 of 6; others draw other keys" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["neighbor(radius=-1)", "x"], "neighbor(radius=-1): radius must be a whole number >= 0"),
        (["self()", ""], "the text is empty: ''"),
        (["self()", "x", "--layer", "6"], "layer 6 does not exist: the model has 6, 0 to 5"),
        (["self()", "x", "--png", "mask.gif"], "a picture's name ends in .png, .svg, .pdf; got "
         "'mask.gif'"),
        (["self()\n|", "x"], "expected a pattern, found the end; at column 9 of 'self()\\n|'"),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_one_line_and_status_2(run, arguments, message):
    code, _, err = run("show", *arguments)
    assert code == 2
    assert err == f"error: {message}\n"


def test_patterns_and_backends(run):
    code, out, err = run("patterns")
    assert (code, err) == (0, "")
    assert "neighbor(radius)" in out
    code, out, err = run("backends")
    assert (code, err) == (0, "")
    assert "masked" in out


LIGHT = """
import sys
from pathlib import Path
from sparseattn.cli.main import main
for arguments in (["--help"], ["learn", "--help"], ["show", "--help"], ["--version"]):
    sys.argv = ["sparseattn", *arguments]
    try:
        main()
    except SystemExit as left:
        print("status", left.code)
heavy = ("torch", "transformers", "spacy", "matplotlib", "numpy", "datasets")
print("loaded", [name for name in heavy if name in sys.modules])
"""


def test_help_and_version_load_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    for says in ("backends", "--sparsity", "PATTERN", f"sparseattn {sparseattn.__version__}\n"):
        assert says in done.stdout
    assert done.stdout.count("status 0\n") == 4
    assert done.stdout.endswith("loaded []\n")
    assert done.stderr == ""


def test_a_terminal_without_the_letters_of_the_text():
    done = subprocess.run(
        [sys.executable, "-m", "sparseattn", "show", "self()", "a 漢"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "[CLS]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "nothing()", "text"], "unknown pattern 'nothing'"),
        (["show", "self()"], "Missing argument 'TEXT'."),
        (["study", "rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["study", "run"], "Missing argument 'spec'."),
        (["lengthen", "m", "--to", "x", "--out", "y"], "Invalid value for '--to'"),
        (["demo", "--quik"], "No such option: --quik"),
    ],
)
def test_a_misspelt_command_is_one_line_and_status_2(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {says}")
    assert err.count("\n") == 1
    assert ("--help`." in err) == ("pattern" not in says)


def test_env_says_what_an_issue_asks_for(run, tmp_path):
    model = build("bert")
    sparseattn.sparsify(model, "neighbor(radius=2) | global(cls)", layers="1:")
    model.save_pretrained(tmp_path)
    code, out, _ = run("env", str(tmp_path))
    lines = out.splitlines()
    assert code == 0
    assert f"sparseattn: {sparseattn.__version__}" in lines
    assert any(line.startswith("torch: 2.") for line in lines)
    assert any(line.startswith("backend masked: cpu: inference and training") for line in lines)
    plan = ["plan, backend auto:", "  layers 1:: neighbor(radius=2) | global(cls)"]
    assert lines[-3:] == ["model: bert", *plan]
    assert run("env", "/no/such/model")[0] == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is played by /dev/full")
def test_a_full_disk_is_one_line(run, monkeypatch):
    code, _, err = run("show", "neighbor(2)", "One two.", "--png", "/dev/full")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_report_that_cannot_be_written_is_one_line(run, tmp_path, monkeypatch):
    pack = Path(__file__).parents[2] / "results" / "rate-sst2.tar.xz"
    _, told, _ = run("study", "unpack", str(pack), "--out", str(tmp_path / "study"))
    assert f"`sparseattn study report {tmp_path}/study`" in told
    (tmp_path / "study" / "report").write_text("in the way")
    code, _, err = run("study", "report", str(tmp_path / "study"))
    assert code == 2
    assert err == f"error: {tmp_path}/study/report: File exists\n"
