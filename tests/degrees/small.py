"""A task that a tiny model can learn, and settings that learn it quickly."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments

from tests.models.families import build


def rows(count: int = 96, seed: int = 0, longest: int = 24) -> list[dict[str, Any]]:
    """Texts of random ids; the label says whether the token after the first is a small one.

    The first token is marked as special, as a tokenizer does.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(10, longest + 1, (1,), generator=generator))
        ids = torch.randint(5, 90, (length,), generator=generator).tolist()
        made.append(
            {
                "input_ids": ids,
                "attention_mask": [1] * length,
                "special_tokens_mask": [1] + [0] * (length - 1),
                "labels": int(ids[1] < 47),
            }
        )
    return made


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads on the right."""
    longest = max(len(example["input_ids"]) for example in examples)
    batch = {
        name: torch.tensor([e[name] + [fill] * (longest - len(e[name])) for e in examples])
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("special_tokens_mask", 1))
        if name in examples[0]
    }
    if "labels" in examples[0]:
        batch["labels"] = torch.tensor([example["labels"] for example in examples])
    return batch


def arguments(folder: Any, steps: int = 24, **changes: Any) -> TrainingArguments:
    """Quiet arguments for a few steps on the CPU."""
    options: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "seed": 3,
    }
    return TrainingArguments(str(folder), **{**options, **changes})


def classifier(**changes: Any) -> Any:
    """A tiny BERT with two classes."""
    return build("bert", "ForSequenceClassification", num_labels=2, **changes)
