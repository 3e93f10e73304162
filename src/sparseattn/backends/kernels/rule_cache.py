"""A cache of what is built for a rule, for the next batch with an equal one.

Each batch has rules of its own. Where its texts are as long as those of a batch before and its plan
is one of positions, they are equal, and so are the lists, masks and block masks built for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from threading import Lock
from typing import Generic, TypeVar

from torch import Tensor

from sparseattn.rules import LayerRule, Part, Rule

T = TypeVar("T")

#: Bytes of tensors that a fingerprint may hold; beyond, comparing costs more than it saves.
_MAX_BYTES = 1 << 20


class RuleCache(Generic[T]):
    """Values by the fingerprint of their rule; the least recently used goes first.

    Args:
        size_of: The size of a value, in any unit.
        max_size: The largest size of a value that is stored.
        read_gpu: Whether building a value takes so long that a rule on a GPU is waited for.
        max_values: How many values are stored.
    """

    def __init__(
        self,
        size_of: Callable[[T], int],
        max_size: int,
        read_gpu: bool = False,
        max_values: int = 16,
    ) -> None:
        self.size_of, self.max_size = size_of, max_size
        self.read_gpu, self.max_values = read_gpu, max_values
        self.values: OrderedDict[Hashable, T] = OrderedDict()
        self.lock = Lock()

    def get(self, rule: LayerRule, option: Hashable, build: Callable[[], T]) -> T:
        """The value of an equal rule and option, or what `build` returns."""
        if (content := fingerprint(rule, self.read_gpu)) is None:
            return build()
        key = (content, option)
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        value = build()
        if self.size_of(value) <= self.max_size:
            with self.lock:
                self.values[key] = value
                while len(self.values) > self.max_values:
                    self.values.popitem(last=False)
        return value


def fingerprint(rule: LayerRule, read_gpu: bool = False) -> Hashable | None:
    """The content of a rule, equal for equal rules.

    Args:
        rule: The rule.
        read_gpu: Whether to read tensors that are on a GPU, which waits for it.

    Returns:
        None where comparing costs too much: large tensors, or tensors that are not to be read.
    """
    tensors = [rule.valid] if rule.padded else []
    groups = [(heads, _structure(shared, tensors)) for heads, shared in rule.groups]
    readable = ("cpu", "cuda") if read_gpu else ("cpu",)
    if (
        any(structure is None for _, structure in groups)
        or any(t.device.type not in readable for t in (rule.valid, *tensors))
        or sum(t.numel() * t.itemsize for t in tensors) > _MAX_BYTES
    ):
        return None
    shape = (rule.heads, tuple(rule.valid.shape), rule.padded, str(rule.valid.device))
    content = [(tuple(t.shape), t.dtype, t.cpu().numpy().tobytes()) for t in tensors]
    return (*shape, *groups, *content)


def _structure(value: object, tensors: list[Tensor]) -> Hashable | None:
    """The types and numbers of a rule, a part or a field, or None for others.

    Its tensors are added to `tensors`.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return "tensor"
    if isinstance(value, tuple):
        items = [_structure(item, tensors) for item in value]
        return None if None in items else tuple(items)
    if isinstance(value, Rule | Part) and is_dataclass(value):
        items = [_structure(getattr(value, field.name), tensors) for field in fields(value)]
        kind = type(value)
        return None if None in items else (kind.__module__, kind.__qualname__, *items)
    if value is None:
        return "none"
    return value if isinstance(value, int | str) else None
