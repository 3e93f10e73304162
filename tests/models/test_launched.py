"""A user's own training around a sparsified model, started as `accelerate launch` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
import torch
from torch.nn.parallel import DistributedDataParallel
import sparseattn as sa
from tests.models.families import batch, build

model = sa.sparsify(build("bert").eval(), "neighbor(radius=1)")
inputs, rank = batch((9, 9, 5, 5)), 0
if "RANK" in os.environ:
    torch.distributed.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    inputs = {name: column[rank::2] for name, column in inputs.items()}
    wrapped = DistributedDataParallel(model)
else:
    wrapped = model
rows = [wrapped(**{name: column[i : i + 1] for name, column in inputs.items()})[0] for i in (0, 1)]
if "RANK" not in os.environ:
    rows = [wrapped(**{n: column[i : i + 1] for n, column in inputs.items()})[0] for i in range(4)]
sum(row.square().mean() for row in rows).div(len(rows)).backward()
gradient = model.encoder.layer[0].attention.self.query.weight.grad.flatten()[:50].tolist()
if rank == 0:
    print(json.dumps(gradient))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


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
        environment = {**os.environ, "PYTHONPATH": path, **(launcher if count > 1 else {})}
        command = [sys.executable, "-c", SCRIPT]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    texts = [run.communicate(timeout=250)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * count
    gradient: list[float] = json.loads(texts[0])
    return gradient


def test_two_processes_have_the_gradients_of_one():
    assert started(2) == pytest.approx(started(1), rel=1e-4, abs=1e-6)
