"""A report over 10,000 trials: what it reads, how long it takes, what it needs."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from sparseattn.report import StudyData, write_report
from tests.report.fake import SPEC, counting

EXAMPLES = 300


def many(arms: int, seeds: int) -> StudyData:
    """`arms` arms with `seeds` seeds each; predictions are made when they are asked for."""
    draw, count = np.random.default_rng(0), arms * seeds
    ease, label = draw.normal(3, 2, EXAMPLES), np.arange(EXAMPLES) % 2
    names = np.array([f"dev-{i}" for i in range(EXAMPLES)], dtype=object)
    number = np.arange(count) // seeds

    def right(trial: int) -> np.ndarray:
        return ease + np.random.default_rng(trial).normal(0, 1, EXAMPLES) > 0

    def predictions(digest: str) -> pd.DataFrame:
        hit = right(int(digest, 16))
        guess = np.where(hit, label, 1 - label)
        columns = {"label": label, "prediction": guess, "score": hit.astype(float)}
        return pd.DataFrame({"example": names, **columns})

    rows = pd.DataFrame(
        {
            "digest": [f"{i:016x}" for i in range(count)],
            "arm": np.where(number == 0, "dense", [f"arm-{n // 2}" for n in number]),
            "layers": np.where(number == 0, "", np.where(number % 2, ":", "3:")),
            "pattern": "neighbor(radius=8)",
            "seed": np.arange(count) % seeds,
            "status": "done",
            "reason": None,
            "headline": "accuracy",
            "accuracy": [right(i).mean() for i in range(count)],
            "sparsity": draw.uniform(0.3, 0.95, count),
            "seconds": 40.0,
        }
    )
    rows.loc[rows.index[-700:], ["status", "reason"]] = ["failed", "out of memory"]
    return StudyData("many", "", SPEC, rows, predictions, ("accuracy",))


@pytest.mark.parametrize(
    ("arms", "seeds", "read"),
    [(3333, 3, 189), pytest.param(10, 1000, 260, marks=pytest.mark.slow)],
)
def test_ten_thousand_trials(tmp_path, arms: int, seeds: int, read: int) -> None:
    data = many(arms, seeds)
    data, seen = counting(data)
    start = time.process_time()
    html, text = write_report(data, tmp_path)[:2]
    assert time.process_time() - start < 20
    assert len(seen) == read  # 60 arms at most, 20 seeds of each; three again
    assert html.stat().st_size < 1_500_000
    said = text.read_text(encoding="utf-8")
    assert "650 more failed trials are not shown." in said
    if arms > 60:
        assert "3,273 more arms are not shown or compared" in said


@pytest.mark.slow
def test_its_memory() -> None:
    code = (
        "import pathlib, re, tempfile\n"
        "from tests.report.test_many import many\n"
        "from sparseattn.report import write_report\n"
        "write_report(many(3333, 3), tempfile.mkdtemp())\n"
        # Not what `getrusage` says, which counts the process that it was forked from.
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000
