"""Every command's help ends with lines that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sparseattn.cli.main import app


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        inner = (*path, name)
        yield from commands(command, inner) if hasattr(command, "commands") else [(inner, command)]


ROOT = typer.main.get_command(app)
GROUPS = {(): ROOT} | {(name,): ROOT.commands[name] for name in ("study", "bench")}
COMMANDS = dict(commands(ROOT)) | GROUPS


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(("sparseattn", *path)))
def test_examples_can_be_pasted(path):
    lines = [line.strip() for line in (COMMANDS[path].epilog or "").splitlines() if line.strip()]
    assert lines[0] == "Examples:"
    assert len(lines) == 3
    assert any(line.split()[1 : 1 + len(path)] == list(path) for line in lines[1:])
    for line in lines[1:]:
        program, *words = shlex.split(line)
        assert program == "sparseattn"
        command = ROOT
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(line, words)  # parses, and runs nothing


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_printed_whole(flag):
    result = CliRunner().invoke(app, ["bench", "predict", flag], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "sparseattn bench predict bert-base-uncased --plan plan.json" in result.output
