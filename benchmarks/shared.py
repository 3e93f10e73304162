"""What the benchmarks share: options, tables of results, processes of their own."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sparseattn.files import write_whole

FOLDER = Path(__file__).parent / "results"
#: Variables with which freed memory goes back to the system at once.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


# --- the command line


def options(about: str, devices: bool = False) -> argparse.ArgumentParser:
    """A parser of what every script takes."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--quick", action="store_true", help="short: only to see that it works")
    parser.add_argument("--again", action="store_true", help="run parts that the file holds too")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    if devices:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; sets the one thread that `--busy` counts."""
    args = parser.parse_args()
    if getattr(args, "device", "cpu") == "cuda":
        if not torch.cuda.is_available():
            parser.exit(2, "--device cuda: PyTorch finds no GPU on this machine\n")
        if args.busy:
            parser.exit(2, "--busy counts processor time, and --device cuda is another device\n")
    if args.busy:
        torch.set_num_threads(1)
    return args


def data_folder(parser: argparse.ArgumentParser) -> Path:
    """The folder of the data sets."""
    if "SPARSEATTN_DATA" not in os.environ:
        parser.exit(2, "SPARSEATTN_DATA: name the folder of the data sets\n")
    return Path(os.environ["SPARSEATTN_DATA"])


# --- results


class Record:
    """The results of one script: a JSON file, and a Markdown table of it.

    Both are written after every part, so that a part that fails does not lose the others. A part
    that is there already is not run again; one that failed is.

    Args:
        name: Of the script; names its files.
        columns: Of its table.
        setting: What the parts have in common, such as `clock()`; each has a table of its own, and
            so have quick runs.
        args: See `options`.
    """

    def __init__(
        self, name: str, columns: Sequence[str], setting: str, args: argparse.Namespace
    ) -> None:
        self.columns, self.again = list(columns), args.again
        self.setting = f"{setting}, quick" if args.quick else setting
        self.file = args.out / f"{name}.json"
        self.table = args.out / f"{name}.md"
        self.failed = 0
        self.results: dict[str, Any] = (
            json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        )
        print("\n".join([self.setting, "", *self._head()]), flush=True)

    def part(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Runs a part, unless it is there, and writes the files.

        Args:
            name: Of the part.
            run: Returns `rows`, the lines of the table, and whatever else is to be stored.
        """
        result = self.results.get(self.setting, {}).get(name)
        if result is None or "failed" in result or self.again:
            start = time.perf_counter()
            try:
                result = run()
            # `check` ends with a `SystemExit`, which ends this part only.
            except (Exception, SystemExit) as error:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                lines = str(error).strip().splitlines() or [type(error).__name__]
                result = {"failed": lines[0]}
            result |= {"seconds": round(time.perf_counter() - start, 1), "machine": _machine()}
            self.results.setdefault(self.setting, {})[name] = result
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, json.dumps(self.results, indent=1) + "\n")
            write_whole(self.table, "\n".join(self._markdown()).rstrip() + "\n")
        self.failed += "failed" in result
        print("\n".join(self._rows(name, result)), flush=True)

    def done(self) -> None:
        """Ends the script, with an error where a part failed."""
        if self.failed:
            sys.exit(f"{self.failed} part(s) failed; the others are in {self.table}")

    def _head(self) -> list[str]:
        return [_line(self.columns), _line(["---"] * len(self.columns))]

    def _rows(self, name: str, result: dict[str, Any]) -> list[str]:
        empty = [""] * (len(self.columns) - 2)
        failed = [[name, f"failed: {result.get('failed')}", *empty]]
        return [_line(row) for row in result.get("rows", failed)]

    def _markdown(self) -> list[str]:
        lines = []
        for setting, parts in self.results.items():
            machines = sorted({result["machine"] for result in parts.values()})
            lines += [f"{setting}; {'; '.join(machines)}", "", *self._head()]
            for name, result in parts.items():
                lines += self._rows(name, result)
            lines.append("")
        return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def clock(busy: bool, device: str = "cpu") -> str:
    """How times are taken."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "processor time of one thread" if busy else f"{torch.get_num_threads()} threads"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
    values = {key.strip(): value.strip() for key, value in pairs}
    # A cloud's names hide the generation; its numbers do not.
    names = {"model name": "", "cpu family": "family ", "model": "model "}
    processor = " ".join(text + values[key] for key, text in names.items() if key in values)
    return f"torch {torch.__version__}, {processor or platform.machine()}"


# --- processes of their own


def alone(arguments: Sequence[object], environment: Mapping[str, str]) -> str:
    """What a script prints in a process of its own; ends the part where that fails.

    Args:
        arguments: Its path and its arguments.
        environment: Variables beside those of this process.
    """
    command = [sys.executable, *map(str, arguments)]
    settings = {**os.environ, **environment}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=settings)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["killed"]
        sys.exit(f"{' '.join(command[1:])} failed: {lines[-1]}")
    return done.stdout


def added(run: Callable[[], object]) -> int:
    """Bytes by which the peak of resident memory during a run exceeds what was before; Linux."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    results = run()
    highest = status("VmHWM")
    del results
    return highest - before


def status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
