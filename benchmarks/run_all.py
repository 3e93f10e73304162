"""The benchmarks of speed and memory, one after another, on a machine that does nothing else.

Each script runs in a process of its own and writes its results part by part to benchmarks/results/;
running this again does what is missing.

    python benchmarks/run_all.py [--minutes 60] [--busy] [--quick] [--again] [--out DIR]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from shared import options

SCRIPTS = ("attention", "encoders", "memory", "overhead", "prediction", "learn_cost", "packing")
#: Options of all scripts.
SHARED = ("busy", "quick", "again")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for all of it")
    args = parser.parse_args()
    more = [f"--{name}" for name in SHARED if getattr(args, name)]
    end, failed = time.monotonic() + 60 * args.minutes, []
    for name in SCRIPTS:
        script = str(Path(__file__).with_name(f"{name}.py"))
        command = [sys.executable, script, "--out", str(args.out), *more]
        print(f"\n# {name}", flush=True)
        try:
            left = max(end - time.monotonic(), 1)
            subprocess.run(command, check=True, timeout=left)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            failed.append(name)
    if failed:
        sys.exit(f"not complete: {', '.join(failed)}; run this again for what is missing")


if __name__ == "__main__":
    main()
