"""Two processes learn the same degrees as one another, and as one process with their batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("parallel_worker.py")


def run(folder, processes, batch):
    """Starts the workers by hand: `torchrun` wants a port of its own and leaves children behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = []
    for rank in range(processes):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])}
        if processes > 1:
            env |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        out = folder / f"{processes}-{rank}.json"
        workers.append(
            (out, subprocess.Popen([sys.executable, str(WORKER), str(out), str(batch)], env=env))
        )
    try:
        for _, worker in workers:
            assert worker.wait(timeout=600) == 0
    finally:
        for _, worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    return [json.loads(out.read_text()) for out, _ in workers]


@pytest.mark.slow
@pytest.mark.timeout(1300)
def test_two_processes_agree(tmp_path):
    first, second = run(tmp_path, 2, batch=4)
    assert first == second
    (alone,) = run(tmp_path, 1, batch=8)
    assert first["plan"] == alone["plan"]
    assert first["theta"] == pytest.approx(alone["theta"], abs=2e-3)
    assert [e["density"] for e in first["history"]] == pytest.approx(
        [e["density"] for e in alone["history"]], abs=2e-4
    )
