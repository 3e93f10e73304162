"""Every benchmark of speed and memory, one after another, on a machine that does nothing else.

Each script runs in a process of its own and keeps its results part by part in benchmarks/results/;
one that fails, or that the time ends, does not stop the others, and running this again does what is
missing. `tables.md` there joins the tables.

    python benchmarks/run_all.py [--minutes 60] [--busy] [--quick] [--again] [--out DIR]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from options import options

#: The scripts, and the rows or parts that come first: what is least known, and short.
RUNS = (
    ("attention",),
    ("encoders", "--rows", "dropout-8x512", "dropout-1x512", "inference-32x128", "dropout-32x128",
     "inference-1x128", "dropout-1x128"),
    ("encoders", "--rows", "inference-6x384", "dropout-6x384", "training-6x384"),
    ("memory",),
    ("encoders", "--seconds", "60", "--rows", "inference-12x768", "dropout-12x768",
     "training-12x768"),
    ("overhead",),
    ("prediction",),
    ("learn_cost",),
    ("kept_memory",),
)  # fmt: skip
#: Arguments of all scripts that are handed on.
SHARED = ("busy", "quick", "again")


def main() -> None:
    """Runs them and joins the tables."""
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for all of it")
    given = parser.parse_args()
    more = [f"--{name}" for name in SHARED if getattr(given, name)]
    end, failed = time.monotonic() + 60 * given.minutes, []
    for name, *arguments in RUNS:
        script = str(Path(__file__).with_name(f"{name}.py"))
        command = [sys.executable, script, *arguments, "--out", str(given.out), *more]
        print(f"\n# {name} {' '.join(arguments)}", flush=True)
        try:
            left = max(end - time.monotonic(), 1)
            done = subprocess.run(command, check=False, timeout=left).returncode == 0
        except subprocess.TimeoutExpired:
            print("the time is over: run this again for what is missing", flush=True)
            done = False
        if not done:
            failed.append(name)
    joined(given.out)
    if failed:
        sys.exit(f"not complete: {', '.join(dict.fromkeys(failed))}")


def joined(folder: Path) -> None:
    """Writes the tables of all scripts into one file."""
    names = dict.fromkeys(name for name, *_ in RUNS)
    tables = [folder / f"{name}.md" for name in names if (folder / f"{name}.md").exists()]
    text = "\n".join(f"# {t.stem}\n\n{t.read_text(encoding='utf-8')}" for t in tables)
    (folder / "tables.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
