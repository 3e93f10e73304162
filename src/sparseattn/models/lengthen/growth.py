"""The tensors that a longer model has, and putting them into the one at hand.

What depends on the limit is found by building a second model from the same config with a larger
limit and comparing shapes. That model is also what a reloaded one will be, so that its outputs are
compared before anything is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import UnsupportedModelError, first_line
from sparseattn.models.encoder import random_outputs
from sparseattn.models.int8 import is_quantized
from sparseattn.models.positions import Positions

_FIELD = "max_position_embeddings"


def refused(model: nn.Module, why: str) -> UnsupportedModelError:
    """The error that says why a model cannot be lengthened."""
    return UnsupportedModelError(f"{type(model).__name__} cannot be lengthened: {why}")


def change(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Sets an attribute, and notes how to set it back."""
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


@dataclass(frozen=True)
class Growth:
    """What a model needs to take longer texts.

    Attributes:
        limit: The config's new limit.
        copied: Tables of learned positions, copied over and over, by name.
        computed: Tensors that the class computes from its config, such as fixed positions and
            buffers of numbers, by name.
        fresh: A model built for the new limit, with the weights of the one at hand.
    """

    limit: int
    copied: dict[str, Tensor]
    computed: dict[str, Tensor]
    fresh: Any

    @property
    def fixed(self) -> bool:
        """Whether a table of positions, not only numbers, was computed."""
        return any(tensor.is_floating_point() for tensor in self.computed.values())

    @classmethod
    def of(cls, model: Any, encoder: Any, positions: Positions, to: int) -> Growth:
        """Builds the longer model from one without a plan, whose positions have a limit."""
        assert positions.limit is not None, "a model without a limit needs no growth"
        stated = getattr(encoder.config, _FIELD, None)
        if not stated or stated < 0:
            raise refused(encoder, f"its config has no {_FIELD}, so the length would not be saved")
        if is_quantized(encoder):
            raise refused(encoder, "it is int8; lengthen the model as it was before quantize()")
        limit = stated + to - positions.limit
        config = deepcopy(model.config)
        setattr(config, _FIELD, limit)
        try:
            with torch.random.fork_rng():
                fresh = type(model)(config)
        except Exception as error:
            why = f"it cannot be built with {limit:,} positions: {first_line(error)}"
            raise refused(encoder, why) from error
        old, new = tensors(model), tensors(fresh)
        longer = [name for name in new if name in old and new[name].shape != old[name].shape]
        computed = {n: new[n].to(old[n]) for n in longer if _goes_on(old[n], new[n])}
        copied = {}
        for name in set(longer) - computed.keys():
            start = positions.tables.get(name.removesuffix(".weight"))
            if start is None or new[name].shape != (start + to, *old[name].shape[1:]):
                raise refused(
                    encoder,
                    f"the size of {name} {list(old[name].shape)} follows {_FIELD}, and it is no "
                    "table of absolute positions, so that copies of its rows would mean nothing",
                )
            copied[name] = _tiled(old[name], start, to)
        for table in positions.tables:
            if f"{table}.weight" not in {**copied, **computed}:
                raise refused(encoder, f"the size of {table}.weight does not follow {_FIELD}")
        _fill(fresh, encoder, old, {**model.state_dict(), **copied, **computed})
        return cls(limit, copied, computed, fresh)

    def check(self, encoder: Any, lengths: Sequence[Sequence[int]]) -> None:
        """Refuses a longer model whose outputs at these lengths are not those of the encoder."""
        longer = self.fresh.base_model.eval()
        for batch in lengths:
            if not torch.equal(random_outputs(encoder, batch), random_outputs(longer, batch)):
                raise refused(
                    encoder,
                    f"built with {_FIELD}={self.limit} it has other outputs at {max(batch):,} "
                    "tokens; it scales relative or rotary positions by that limit, or it is not "
                    "what its config describes",
                )

    def apply(self, model: Any, undo: ExitStack) -> None:
        """Makes the model at hand the longer one."""
        stated = getattr(model.base_model.config, _FIELD, None)
        configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None))}
        for config in configs.values():
            if getattr(config, _FIELD, None) == stated:
                change(undo, config, _FIELD, self.limit)
        for name, tensor in {**self.copied, **self.computed}.items():
            place, _, last = name.rpartition(".")
            owner = model.get_submodule(place)
            before = getattr(owner, last)
            if isinstance(before, nn.Parameter):
                tensor = nn.Parameter(tensor, before.requires_grad)
            change(undo, owner, last, tensor)
        modules = dict(model.named_modules())
        for name, module in self.fresh.named_modules():
            for key, value in vars(module).items():
                before = vars(modules[name]).get(key) if name in modules else None
                if type(before) is type(value) is int and before != value:
                    change(undo, modules[name], key, value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by all of its names, tied and unsaved ones included."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def _goes_on(old: Tensor, new: Tensor) -> bool:
    """Whether a new tensor is longer in one dimension and begins like the old one."""
    if old.dim() != new.dim():
        return False
    growth = [b - a for a, b in zip(old.shape, new.shape, strict=True) if a != b]
    if len(growth) != 1 or growth[0] < 0:
        return False
    return torch.equal(new[tuple(slice(size) for size in old.shape)].to(old), old)


def _tiled(table: Tensor, start: int, to: int) -> Tensor:
    """The rows of positions copied over and over; rows before `start` stay single.

    Longformer (arXiv 2004.05150, section 5) extends RoBERTa so: the copies keep what attention has
    learned about near positions, everywhere but at the seams.
    """
    rows = torch.arange(to, device=table.device) % (table.shape[0] - start)
    return torch.cat([table[:start], table[start:][rows]]).detach()


def _fill(fresh: Any, encoder: Any, old: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Gives a new model the tensors `old` at hand, shared, and `state` in the sizes of the new."""
    fresh.to(next(encoder.parameters()).device)
    for name, buffer in fresh.named_buffers():
        mine = old.get(name)
        if mine is None or mine.dtype == buffer.dtype or mine.shape != buffer.shape:
            continue
        if torch.equal(buffer.to(mine), mine):  # the same, in the dtype that the user chose
            place, _, last = name.rpartition(".")
            setattr(fresh.get_submodule(place), last, mine)
    unsaved = tensors(fresh).keys() - fresh.state_dict().keys()
    saved = {name: tensor for name, tensor in state.items() if name not in unsaved}
    try:
        unknown = fresh.load_state_dict(saved, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        why = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise refused(encoder, f"it is not what its config describes: {why}") from error
    if unknown:
        why = f"it holds what its config does not describe: {unknown[0]}"
        raise refused(encoder, f"{why}; merge adapters into the model first")
