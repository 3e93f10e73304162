"""Learns degrees in one process of several and writes down what it learned."""

from __future__ import annotations

import json
import os
import sys
import tempfile

import torch

from sparseattn.degrees.learn import Learner
from sparseattn.degrees.settings import Settings
from tests.degrees.small import arguments, classifier, collate, rows


def main(out: str, batch: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        several = {"ddp_backend": "gloo"} if "WORLD_SIZE" in os.environ else {}
        made = arguments(folder, 8, per_device_train_batch_size=int(batch), **several)
        learner = Learner(classifier(), rows(), made, {"data_collator": collate}, Settings())
        learner.search(0.7, 8)
        plan = learner.discretize(0.7).plan
        learned = learner.finetune(0.7, 4)
    told = {
        "plan": str(plan),
        "theta": learner.degrees.theta.detach().flatten().tolist(),
        "history": [{"density": e["density"], "lambda1": e["lambda1"]} for e in learner.history],
        "weight": [round(v, 6) for v in learned.model.classifier.weight.flatten().tolist()],
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(told, file)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
