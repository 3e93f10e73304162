"""The command line in this process."""

import sys

import pytest

from sparseattn.cli import main as cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line; returns its exit status and what it printed."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparseattn", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call
