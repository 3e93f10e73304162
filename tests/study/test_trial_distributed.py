"""A trial in several processes, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from sparseattn.errors import StudyError
from sparseattn.study.trial import TrialCache, TrialSpec, run_trial
from sparseattn.tasks.spec import TrainingSpec
from tests.tasks.material import task_of, tiny_model

#: 21 of each: the last batch of 8 has 5, which the processes share unevenly.
ROWS = {
    "classification": [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(21)],
    "token-classification": [
        {"tokens": ["word"] * count, "tags": (["O", "B-X"] * 7)[:count]}
        for count in (1 + n * 5 % 13 for n in range(21))
    ],
}

SCRIPT = """
import json, sys
from pathlib import Path
from sparseattn.study.trial import TrialCache, TrialSpec, run_trial

spec = TrialSpec.model_validate_json(Path(sys.argv[1]).read_text())
result = run_trial(spec, cache=TrialCache(Path(sys.argv[2])))
if result.environment["rank"] == 0:
    values = {"history": result.history, "predictions": result.predictions.to_pydict()}
    print("RESULT" + json.dumps(values))
"""


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize(
    ("kind", "grouped"),
    [
        ("token-classification", False),
        pytest.param("classification", False, marks=pytest.mark.slow),
        pytest.param("classification", True, marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_share_a_batch_train_like_one(tmp_path, kind, grouped):
    rows = ROWS[kind]
    spec = TrialSpec(
        model=str(tmp_path / "model"),
        task=task_of(tmp_path, rows, others=rows[:7], kind=kind),
        training=TrainingSpec(
            epochs=2, batch_size=8, dropout=0.0, max_grad_norm=0.0, length_grouped=grouped
        ),
        pattern="neighbor(radius=1) | global(cls)",
    )
    tiny_model(tmp_path / "model")
    one = run_trial(spec, cache=TrialCache(tmp_path / "cache"))
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "spec.json"), str(tmp_path / "cache")],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    (line,) = [line for line in ended[0][0].splitlines() if line.startswith("RESULT")]
    two = json.loads(line.removeprefix("RESULT"))
    assert len(two["history"]) == len(one.history)
    for left, right in zip(two["history"], one.history, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)
        assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-3)
    # 7 examples over 2 processes: the one that evens them out does not come back.
    assert two["predictions"] == one.predictions.to_pydict()


def test_checkpoints_of_several_processes_need_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    task = task_of(tmp_path, ROWS["classification"])
    spec = TrialSpec(model="none", task=task, training=TrainingSpec(checkpoint_steps=2))
    with pytest.raises(StudyError, match="need a folder that all of them see"):
        run_trial(spec)
