"""What the benchmarks find: a JSON file of each script, and a Markdown table made from it.

Both are written anew after every part, so that a part that fails, or a run that is ended, does not
lose the others. A part that is there already is not run again; one that failed is.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["FOLDER", "Record", "clock"]

FOLDER = Path(__file__).parent / "results"

#: A line of a table: its cells, or what else a script makes lines of.
Row = Sequence[str]


class Record:
    """The results of one script.

    Args:
        name: Of the script; names its files.
        columns: Of its table.
        how: What the parts have in common, such as `clock()`; parts that were found another way
            stand in a table of their own.
        folder: Where the files are.
        again: Whether parts that are there are run again.
    """

    def __init__(
        self,
        name: str,
        columns: Row,
        how: str,
        folder: Path = FOLDER,
        again: bool = False,
    ) -> None:
        self.columns, self.how, self.again = list(columns), how, again
        self.file = folder / f"{name}.json"
        self.table = folder / f"{name}.md"
        self.failed = 0
        print(f"{how}\n\n{_line(self.columns)}\n{_line(['---'] * len(self.columns))}", flush=True)

    def part(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Runs a part, unless it is there, and writes the files.

        Args:
            name: Of the part.
            make: Runs it. What it returns holds `rows`, the lines of the table, and whatever else
                is worth keeping.
        """
        found = self.stored().get(self.how, {}).get(name)
        if found is None or "failed" in found or self.again:
            start = time.perf_counter()
            found = self._made(make)
            found |= {"seconds": round(time.perf_counter() - start, 1), "machine": machine()}
            self._store(name, found)
        self.failed += "failed" in found
        for row in self._rows(name, found):
            print(_line(row), flush=True)

    def _made(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return make()
        # A comparison with the definition that fails is a `SystemExit`, and ends this part only.
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            said = str(error).strip().splitlines() or [type(error).__name__]
            return {"failed": said[0]}

    def _rows(self, name: str, found: dict[str, Any]) -> list[Row]:
        if "failed" in found:
            left = len(self.columns) - 2
            return [[name, f"failed: {found['failed']}", *[""] * left]]
        return found["rows"]

    def stored(self) -> dict[str, Any]:
        """What the file holds: how parts were found, their names, what was found."""
        if not self.file.exists():
            return {}
        found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return found

    def _store(self, name: str, found: dict[str, Any]) -> None:
        results = self.stored()
        results.setdefault(self.how, {})[name] = found
        _write(self.file, json.dumps(results, indent=1))
        _write(self.table, "\n".join(self._markdown(results)))

    def _markdown(self, results: dict[str, Any]) -> list[str]:
        lines = []
        for how, parts in results.items():
            machines = sorted({found["machine"] for found in parts.values()})
            lines += [f"{how}; {'; '.join(machines)}", ""]
            lines += [_line(self.columns), _line(["---"] * len(self.columns))]
            for name, found in parts.items():
                lines += map(_line, self._rows(name, found))
            lines.append("")
        return lines

    def done(self) -> None:
        """Ends the script, with an error where a part failed."""
        if self.failed:
            sys.exit(f"{self.failed} part(s) failed; the others are in {self.table}")


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(text.rstrip() + "\n", encoding="utf-8")
    fresh.replace(file)


def clock(busy: bool, device: str = "cpu") -> str:
    """How times are taken, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "processor time of one thread" if busy else f"{torch.get_num_threads()} threads"


def machine() -> str:
    """What times depend on, in words."""
    return f"torch {torch.__version__}, {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    said = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {key.strip(): value.strip() for key, value in said.items()}
    if "model name" not in known:
        return platform.machine()
    # A cloud's names hide the generation; its numbers do not.
    family = [
        f"{key} {known[name]}"
        for key, name in (("family", "cpu family"), ("model", "model"))
        if name in known
    ]
    return " ".join([known["model name"], *family])
