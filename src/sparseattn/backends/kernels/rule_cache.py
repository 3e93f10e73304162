"""What was made for a rule, kept for the next batch with an equal one.

Each batch has rules of its own. Where its texts are as long as those of a batch before and its plan
is one of positions, they are equal, and so are the lists, masks and block masks made for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import Generic, TypeVar

from torch import Tensor

from sparseattn.rules import LayerRule, Part, Rule

__all__ = ["RuleCache", "fingerprint"]

T = TypeVar("T")

#: Bytes of tensors that a fingerprint may hold; beyond, comparing costs more than it saves.
_MOST_BYTES = 1 << 20


class RuleCache(Generic[T]):
    """The last things that were made, by the fingerprint of their rule.

    Args:
        weight: What a thing takes, in any unit.
        heaviest: The most that one may take to be kept.
        waits: Whether making one takes so long that reading a rule from a GPU is worth waiting for.
        most: How many are kept.
    """

    def __init__(
        self, weight: Callable[[T], int], heaviest: int, waits: bool = False, most: int = 16
    ) -> None:
        self.weight, self.heaviest, self.waits, self.most = weight, heaviest, waits, most
        self.kept: OrderedDict[Hashable, T] = OrderedDict()
        self.lock = Lock()

    def get(self, rule: LayerRule, more: Hashable, make: Callable[[], T]) -> T:
        """What was made for an equal rule, or what `make` makes.

        Args:
            rule: The rule.
            more: What else it depends on.
            make: Makes it.
        """
        print_ = fingerprint(rule, self.waits)
        if print_ is None:
            return make()
        key = (print_, more)
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        made = make()
        if self.weight(made) <= self.heaviest:
            with self.lock:
                self.kept[key] = made
                while len(self.kept) > self.most:
                    self.kept.popitem(last=False)
        return made


def fingerprint(rule: LayerRule, waits: bool = False) -> Hashable | None:
    """What an equal rule of another batch has in common with this one.

    Args:
        rule: The rule.
        waits: Whether to wait for tensors that are on a GPU.

    Returns:
        None where it is not worth knowing: large tensors, or some that are not on the CPU, unless
        they are waited for.
    """
    device = rule.valid.device
    found: list[Hashable] = [rule.heads, tuple(rule.valid.shape), rule.padded, str(device)]
    tensors = [rule.valid] if rule.padded else []
    for heads, shared in rule.groups:
        said = _said(shared, tensors)
        if said is None:
            return None
        found += [heads, said]
    near = ("cpu", "cuda") if waits else ("cpu",)
    if any(t.device.type not in near for t in (rule.valid, *tensors)):
        return None
    if sum(t.numel() * t.itemsize for t in tensors) > _MOST_BYTES:
        return None
    content = [(tuple(t.shape), t.dtype, t.cpu().numpy().tobytes()) for t in tensors]
    return (*found, *content)


def _said(what: Rule | Part, tensors: list[Tensor]) -> Hashable | None:
    """The kind and the numbers of a rule or a part; its tensors are added to `tensors`."""
    if not is_dataclass(what):
        return None
    kind = type(what)
    found: list[Hashable] = [kind.__module__, kind.__qualname__]
    for field in fields(what):
        value = getattr(what, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            said = _value(one, tensors)
            if said is None:
                return None
            found.append(said)
    return tuple(found)


def _value(value: object, tensors: list[Tensor]) -> Hashable | None:
    if isinstance(value, Tensor):
        tensors.append(value)
        return "tensor"
    if isinstance(value, Rule | Part):
        return _said(value, tensors)
    return value if isinstance(value, int | str) else None
