"""The cells of a guide: its page is the one source of its notebook and of the test that runs it.

A block of `python` or `sh` is a cell, and so is any block that has a file's name as its title,
which it writes. Everything else is text, blocks of other kinds included.

    python tools/guides.py PAGE     runs one in the current folder
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cell", "cells", "notebook", "run"]

_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
#: Links to other pages, which do not lie beside a notebook.
_PAGE = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")


@dataclass(frozen=True)
class Cell:
    """A part of a guide.

    Attributes:
        kind: `text`, `python`, `sh`, or `file`.
        source: Its text.
        line: Where it begins in its page, from 1.
        file: The name of the file that a cell of that kind writes.
    """

    kind: str
    source: str
    line: int
    file: str = ""


def cells(page: str) -> Iterator[Cell]:
    """The cells of a page, in order."""
    end = 0
    for block in _BLOCK.finditer(page):
        language, file, source = block.groups()
        kind = "file" if file else language
        if kind not in ("file", "python", "sh"):
            continue
        if text := page[end : block.start()].strip():
            yield Cell("text", text, page.count("\n", 0, end) + 1)
        yield Cell(kind, source, page.count("\n", 0, block.start(3)) + 1, file or "")
        end = block.end()
    if text := page[end:].strip():
        yield Cell("text", text, page.count("\n", 0, end) + 1)


def notebook(page: str) -> str:
    """A page as a Jupyter notebook (format 4.5), without outputs."""
    made = []
    for number, cell in enumerate(cells(page)):
        magic = {"sh": "%%sh\n", "file": f"%%writefile {cell.file}\n"}.get(cell.kind, "")
        source = _PAGE.sub(r"\1", cell.source) if cell.kind == "text" else magic + cell.source
        code = {"execution_count": None, "outputs": []} if cell.kind != "text" else {}
        made.append(
            {
                "cell_type": "markdown" if cell.kind == "text" else "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": source.rstrip("\n").splitlines(keepends=True),
                **code,
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def run(path: Path) -> dict[str, object]:
    """Runs the cells of a page in one namespace; files and commands in the current folder.

    Raises:
        subprocess.CalledProcessError: A command failed.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells(path.read_text(encoding="utf-8")):
        if cell.kind == "file":
            Path(cell.file).write_text(cell.source, encoding="utf-8")
        elif cell.kind == "sh":
            subprocess.run(["sh", "-e", "-c", cell.source], check=True)
        elif cell.kind == "python":  # errors name the line of the page
            source = "\n" * (cell.line - 1) + cell.source
            exec(compile(source, str(path), "exec"), names)
    return names


if __name__ == "__main__":
    sys.path[0] = ""  # files that a guide writes can be imported
    run(Path(sys.argv[1]))
