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
from weakref import WeakKeyDictionary

from torch import Tensor

from sparseattn.rules import LayerRule, Part, Rule

T = TypeVar("T")

#: Bytes of tensors that a fingerprint may hold; beyond, comparing costs more than it saves.
_MAX_BYTES = 1 << 20
#: Numbers in a value that is kept for equal rules, and how many such values are kept.
_MAX_NUMBERS = 1 << 20
_MAX_VALUES = 16


class RuleCache(Generic[T]):
    """Values by their rule, and by its fingerprint: of these the least recently used goes first.

    Args:
        numbers: How many numbers a value holds.
        read_gpu: Whether building a value takes so long that a rule on a GPU is waited for.
    """

    def __init__(self, numbers: Callable[[T], int], read_gpu: bool = False) -> None:
        self.numbers, self.read_gpu = numbers, read_gpu
        self.by_rule: WeakKeyDictionary[LayerRule, dict[Hashable, T]] = WeakKeyDictionary()
        self.by_fingerprint: OrderedDict[Hashable, T] = OrderedDict()
        self.lock = Lock()

    def get(self, rule: LayerRule, option: Hashable, build: Callable[[], T]) -> T:
        """The value of the rule or an equal one and an option, or what `build` returns."""
        by_option = self.by_rule.setdefault(rule, {})
        if option not in by_option:
            by_option[option] = self._of_equal(rule, option, build)
        return by_option[option]

    def _of_equal(self, rule: LayerRule, option: Hashable, build: Callable[[], T]) -> T:
        if (content := fingerprint(rule, self.read_gpu)) is None:
            return build()
        key = (content, option)
        with self.lock:
            if key in self.by_fingerprint:
                self.by_fingerprint.move_to_end(key)
                return self.by_fingerprint[key]
        value = build()
        if self.numbers(value) <= _MAX_NUMBERS:
            with self.lock:
                self.by_fingerprint[key] = value
                while len(self.by_fingerprint) > _MAX_VALUES:
                    self.by_fingerprint.popitem(last=False)
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
