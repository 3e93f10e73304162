"""`sparseattn bench predict` against `bench run`: is the forecast of a speed-up right?

For each length the forecast is made first, from its own short runs, and then the stock and the
sparsified model take turns in the same process. The goal: off by at most 20% at any length.

    python benchmarks/prediction.py [--busy] [--quick] [--again]
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache, partial
from typing import Any

import sparseattn as sa
from shared import Record, clock, options, parse
from sparseattn.bench.measure import measure
from sparseattn.bench.models import load
from sparseattn.bench.predict import Predictor
from sparseattn.models.names import DEFAULT

COLUMNS = ("what", "predicted", "measured", "off by", "goal", "backend", "difference")
PLAN = sa.Plan.of("neighbor(radius=64) | global(cls)")
LENGTHS = (128, 512, 1024, 2048, 4096)
#: The longest text of a training step (the stock model stores all scores), and of a quick run.
TRAINED, QUICK = 2048, 512
GOAL = 0.2


@cache
def predictor(trains: bool, busy: bool) -> Predictor:
    """One for all lengths: it makes its short runs once."""
    return Predictor(load(DEFAULT, max(LENGTHS), trains), PLAN, trains=trains, busy=busy)


def compare(length: int, trains: bool, busy: bool) -> dict[str, Any]:
    """A length's line."""
    forecast = predictor(trains, busy).at(length)
    measured = measure(predictor(trains, busy).subject, PLAN, length, busy=busy)
    off = abs(forecast.speedup / measured.speedup - 1)
    cells = [
        f"{'training step' if trains else 'inference'}, {length} tokens",
        f"{forecast.speedup:.2f}x",
        f"{measured.speedup:.2f}x",
        f"{off:.0%}",
        f"at most {GOAL:.0%}: {'met' if off <= GOAL else 'missed'}",
        ", ".join(measured.backends),
        f"{measured.error:.0e} at {measured.compared} tokens",
    ]
    return {"rows": [cells], "predicted": asdict(forecast), "measured": asdict(measured)}


def main() -> None:
    args = parse(options(__doc__))
    plan = str(PLAN.entries[0].pattern).replace("|", "and")
    setting = f"all-MiniLM-L6-v2, one text, {plan}, {clock(args.busy)}"
    record = Record("prediction", COLUMNS, setting, args)
    for trains, longest in ((False, LENGTHS[-1]), (True, TRAINED)):
        for length in LENGTHS:
            if length <= (QUICK if args.quick else longest):
                name = f"{'training' if trains else 'inference'}-{length}"
                record.part(name, partial(compare, length, trains, args.busy))
    record.done()


if __name__ == "__main__":
    main()
