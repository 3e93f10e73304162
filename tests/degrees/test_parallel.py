"""Two processes learn the same degrees as one another, and as one process with their batches."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from sparseattn.degrees.learn import Learner
from sparseattn.degrees.settings import Settings
from tests.degrees.small import arguments, classifier, collate, rows

_ROOT = Path(__file__).parents[2]


def learn(out, batch):
    """One process of several: learns degrees and writes down what it learned."""
    with tempfile.TemporaryDirectory() as folder:
        several = {"ddp_backend": "gloo"} if "WORLD_SIZE" in os.environ else {}
        how = arguments(folder, 8, per_device_train_batch_size=int(batch), **several)
        learner = Learner(classifier(), rows(), how, {"data_collator": collate}, Settings())
        learner.search(0.7, 8)
        plan = learner.discretize(0.7).plan
        learned = learner.finetune(0.7, 4)
    learned_values = {
        "plan": str(plan),
        "theta": learner.degrees.theta.detach().flatten().tolist(),
        "history": [{"density": e["density"], "lambda1": e["lambda1"]} for e in learner.history],
        "weight": [round(v, 6) for v in learned.model.classifier.weight.flatten().tolist()],
    }
    Path(out).write_text(json.dumps(learned_values))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(folder, processes, batch):
    """Starts the workers by hand: `torchrun` wants a port of its own and leaves children behind."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = []
    for rank in range(processes):
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        if processes > 1:
            env |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        out = folder / f"{processes}-{rank}.json"
        command = [sys.executable, "-m", "tests.degrees.test_parallel", str(out), str(batch)]
        workers.append((out, subprocess.Popen(command, env=env, cwd=_ROOT)))
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


if __name__ == "__main__":
    learn(*sys.argv[1:])
