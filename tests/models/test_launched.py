"""A user's own training around a sparsified model, started as `accelerate launch` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

import sparseattn as sa
from tests.models.families import batch, build

SCRIPT = """
import json, os
import torch
from torch.nn.parallel import DistributedDataParallel
from tests.models.test_launched import gradient

torch.distributed.init_process_group("gloo")
found = gradient(DistributedDataParallel, int(os.environ["RANK"]), 2)
if os.environ["RANK"] == "0":
    print(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def gradient(wrap=lambda model: model, rank: int = 0, count: int = 1) -> list[float]:
    """After a step on every so many-th text of a batch."""
    model = sa.sparsify(build("bert"), "neighbor(radius=1)")
    inputs = {name: column[rank::count] for name, column in batch((9, 9, 5, 5)).items()}
    wrapped, places = wrap(model), range(len(inputs["input_ids"]))
    texts = [{name: column[i : i + 1] for name, column in inputs.items()} for i in places]
    sum(wrapped(**text)[0].square().mean() for text in texts).div(len(texts)).backward()
    found = model.encoder.layer[0].attention.self.query.weight.grad
    return found.flatten()[:50].tolist()


def started(count: int) -> list[float]:
    """The gradient after a step in so many processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    runs = []
    for rank in range(count):
        launcher = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        launcher |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, **launcher}
        command = [sys.executable, "-c", SCRIPT]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    texts = [run.communicate(timeout=250)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * count
    found: list[float] = json.loads(texts[0])
    return found


def test_two_processes_have_the_gradients_of_one():
    assert started(2) == pytest.approx(gradient(), rel=1e-4, abs=1e-6)
