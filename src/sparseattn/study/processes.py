"""A trial in several processes: what each takes of a batch, so that the numbers stay those of one.

A launcher starts the processes and numbers them in the variables `WORLD_SIZE` and `RANK`, as
`accelerate launch` and `torchrun` do. Each takes its share of every batch, and the gradients are
averaged. Three things would make that another training than one process does, and are mended here:
a loss is a mean over examples or words, of which the processes have different numbers; accelerate
fills up the last batch of an epoch with examples from its beginning; and batches of similar length
are sorted within a stretch that depends on the batch of one process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from sparseattn.errors import StudyError

__all__ = ["Shares", "agreed", "leads", "processes", "shared_out", "weigh"]

Value = TypeVar("Value")


def processes() -> int:
    """Processes that train this trial together."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def leads() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK") or 0) == 0


def agreed(value: Value) -> Value:
    """What the first process found, on all of them.

    Args:
        value: What this one found; it can be pickled.
    """
    if processes() == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def weigh(model: Any) -> None:
    """Lets the mean of the processes' losses be the mean over all their examples or words.

    Does nothing in a single process.

    Args:
        model: The model; its losses are scaled while it trains.
    """
    if processes() > 1:
        model.register_forward_hook(_weighed, with_kwargs=True)


def _weighed(module: Any, _args: Any, batch: dict[str, Any], output: Any) -> Any:
    loss = getattr(output, "loss", None)
    if not module.training or loss is None:
        return output
    ours = _items(batch).to(loss.device, loss.dtype)
    every = ours.clone()
    torch.distributed.all_reduce(every)
    output["loss"] = loss * (ours * processes() / every)
    return output


def _items(batch: dict[str, Any]) -> torch.Tensor:
    """How many examples, or words with a label, a loss is the mean of."""
    labels: torch.Tensor = batch["labels"] if "labels" in batch else batch["start_positions"]
    if labels.is_floating_point():
        return torch.tensor(labels.numel(), device=labels.device)
    return (labels != -100).sum()


def shared_out(order: Sequence[int], size: int, count: int) -> Iterator[list[int]]:
    """Cuts an epoch into batches and each batch into a share for every process.

    Where the last batch has fewer examples than there are processes, those without one get the
    whole of it: weighed by their numbers of examples, the mean is still that of the batch.

    Args:
        order: The examples.
        size: Examples of a whole batch.
        count: Processes.

    Yields:
        A share for each process in turn, batch after batch.

    >>> list(shared_out([5, 3, 0, 4, 1], 4, 2))
    [[5, 3], [0, 4], [1], [1]]
    """
    for start in range(0, len(order), size):
        batch = list(order[start : start + size])
        cuts = [len(batch) * rank // count for rank in range(count + 1)]
        for first, end in pairwise(cuts):
            yield batch[first:end] or batch


class _Shared:
    """The shares of an epoch, in the place of accelerate's batches."""

    def __init__(self, batches: Any, count: int) -> None:
        self.sampler = batches.sampler
        self.size: int = batches.batch_size * count
        self.count = count
        self.batch_size, self.drop_last = None, False

    def __iter__(self) -> Iterator[list[int]]:
        return shared_out(list(self.sampler), self.size, self.count)

    def __len__(self) -> int:
        batches = math.ceil(len(self.sampler) / self.size)
        return batches * self.count


class Shares(TrainerCallback):
    """Gives each process its share of every batch, and its own dropout.

    Does nothing in a single process.

    Args:
        seed: Decides, with the number of the process, its dropout.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Gives this process its dropout; a checkpoint brings back what it had."""
        if args.process_index:
            # All processes would leave out the same units of different examples.
            torch.manual_seed(self.seed + args.process_index)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Gives this process its shares."""
        if args.world_size == 1:
            return
        shard = kwargs["train_dataloader"].batch_sampler
        if not isinstance(shard, BatchSamplerShard):
            raise StudyError(f"cannot share out the batches of a {type(shard).__name__}")
        if not isinstance(shard.batch_sampler, _Shared):
            shard.batch_sampler = _Shared(shard.batch_sampler, args.world_size)
            # Shares of any size, and as many for each process.
            shard.batch_size, shard.even_batches = None, False
