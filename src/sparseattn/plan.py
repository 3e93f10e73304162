"""Plans: which pattern stands on which layer and head."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseattn.errors import PlanError, reason
from sparseattn.files import write_whole
from sparseattn.pattern import Pattern, parse, rule_of
from sparseattn.patterns.full import Full
from sparseattn.rules import LayerRule
from sparseattn.selection import Selection, is_plan, select_indices, spell_selection
from sparseattn.tokens import TokenBatch
from sparseattn.words import counted

#: A partition of a layer's heads, with the pattern that each part shares.
Groups = tuple[tuple[tuple[int, ...], Pattern], ...]

FORMAT = "sparseattn-plan-1"

#: A line of `Plan.__str__`.
_LINE = re.compile(r"layers? ([-\d:, ]*?)(?:, heads? ([-\d:, ]*))?: (.+)")


@dataclass(frozen=True)
class Entry:
    """A pattern and where it stands.

    Attributes:
        pattern: The pattern.
        layers: A selection in its spelled form, such as `"6:"`; `":"` is all of them.
        heads: Likewise.
    """

    pattern: Pattern
    layers: str = ":"
    heads: str = ":"


@dataclass(frozen=True)
class CompiledPlan:
    """A plan applied to one batch.

    Attributes:
        layers: One rule an attention layer, in the order in which the model calls them.
        biases: Added to the scaled scores of each layer, with gradient; empty for none.
            Shape: broadcastable to [batch, heads, length, length].
    """

    layers: tuple[LayerRule, ...]
    biases: tuple[Tensor | None, ...] = ()

    def bias(self, layer: int) -> Tensor | None:
        """What is added to the scaled scores of a layer; None for nothing."""
        return self.biases[layer] if self.biases else None


@dataclass(frozen=True)
class Plan:
    """Which pattern stands on which layer and head; dense where none does.

    Attributes:
        entries: Later entries override earlier ones on the heads that both name.
        shape: Heads of each layer of the model that it was made for, if it was made for one; on
            another it is refused.
    """

    entries: tuple[Entry, ...]
    shape: tuple[int, ...] | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        plan: Plan | Pattern | str | Mapping[Any, Any],
        layers: Selection = ":",
        heads: Selection = ":",
    ) -> Plan:
        """Makes a plan from whatever a user may pass.

        Args:
            plan: A plan, or the lines that one prints; a pattern or spec string for all the chosen
                layers; or a mapping from layers to one of these (or, once more, from heads to one).
            layers: Layers to put a single pattern on; negative numbers count from the last.
            heads: Likewise.

        Raises:
            PlanError: The selection does not parse, or stands beside a plan that names its own.
            PatternError: A spec string does not parse.

        >>> print(Plan.of({":3": "neighbor(radius=8)", "3:": {"0,1": "self()"}}))
        layers :3: neighbor(radius=8)
        layers 3:, heads 0,1: self()
        >>> print(Plan.of("layer 1, head 2: self()"))
        layer 1, head 2: self()
        """
        if isinstance(plan, Plan):
            _check_own("Plan", layers=layers, heads=heads)
            return plan
        if isinstance(plan, Mapping):
            _check_own("dict", layers=layers)
            entries: list[Entry] = []
            for where, what in plan.items():
                if isinstance(what, Mapping):
                    _check_own("dict", heads=heads)
                    for which, pattern in what.items():
                        entries += cls.of(pattern, where, which).entries
                else:
                    entries += cls.of(what, where, heads).entries
            return cls(tuple(entries))
        if isinstance(plan, Path) or (isinstance(plan, str) and plan.endswith(".json")):
            raise PlanError(f"{plan} is a file: read it with sparseattn.Plan.load")
        if isinstance(plan, str) and is_plan(plan):
            _check_own("plan", layers=layers, heads=heads)
            return cls._of_lines(plan)
        pattern = parse(plan) if isinstance(plan, str) else plan
        if not isinstance(pattern, Pattern):
            raise PlanError(
                f"a plan is a spec string, a pattern, a Plan or a dict of layers; got {plan!r}"
            )
        return cls((Entry(pattern, spell_selection(layers), spell_selection(heads)),))

    @classmethod
    def _of_lines(cls, text: str) -> Plan:
        entries: list[Entry] = []
        for line in filter(None, map(str.strip, re.split("[;\n]", text))):
            match = _LINE.fullmatch(line)
            if match is None:
                raise PlanError(
                    f"{line!r} is no line of a plan, such as 'layers 1, heads 0,2: neighbor(2)'"
                )
            layers, heads, pattern = match.groups()
            entries += cls.of(pattern, layers, ":" if heads is None else heads).entries
        return cls(tuple(entries))

    @property
    def spelled(self) -> str:
        """The plan in one line, from which `of` makes an equal one; empty for one without entries.

        Studies know a plan by this line, so it says `layers` and `heads` of one, too.

        >>> Plan.of({":": "self()", "1": {"0,2": "full()"}}).spelled
        'layers :: self(); layers 1, heads 0,2: full()'
        """
        return "; ".join(_line(entry, _plural) for entry in self.entries)

    @property
    def needs(self) -> frozenset[str]:
        """The annotations that its patterns read."""
        return frozenset().union(*(entry.pattern.needs for entry in self.entries))

    def resolve(
        self, heads: Sequence[int]
    ) -> tuple[tuple[tuple[tuple[int, ...], Pattern], ...], ...]:
        """Says which heads of each layer share which pattern.

        Args:
            heads: Heads of each attention layer of the model.

        Returns:
            For each layer, a partition of its heads with a pattern each.

        Raises:
            PlanError: An entry names a layer or head that the model lacks, or none at all, or the
                plan was made for another shape of model.
        """
        heads_key = tuple(heads)
        if heads_key not in self._resolved:  # asked for every batch
            self._resolved[heads_key] = self._resolve(heads_key)
        return self._resolved[heads_key]

    @cached_property
    def _resolved(self) -> dict[tuple[int, ...], tuple[Groups, ...]]:
        return {}

    def _resolve(self, heads: tuple[int, ...]) -> tuple[Groups, ...]:
        if self.shape not in (None, heads):
            raise PlanError(
                f"this plan was made for a model of {_spell_shape(self.shape)}, and this one has "
                f"{_spell_shape(heads)}"
            )
        owners: list[list[int | None]] = [[None] * count for count in heads]
        used: set[int] = set()
        for index, entry in enumerate(self.entries):
            for layer in _chosen(entry.layers, len(heads), "layer"):
                for head in _chosen(entry.heads, heads[layer], f"head of layer {layer}:"):
                    owners[layer][head] = index
                    used.add(index)
        for index in sorted(used.difference(*owners)):
            line = str(Plan((self.entries[index],)))
            warnings.warn(
                f"{line!r} has no effect: later entries of the plan name all of its heads",
                stacklevel=2,
            )
        chosen = [
            [Full() if index is None else self.entries[index].pattern for index in row]
            for row in owners
        ]
        return tuple(_grouped(patterns) for patterns in chosen)

    def compile(
        self,
        tokens: TokenBatch,
        heads: Sequence[int],
        windows: Sequence[int | None] | None = None,
    ) -> CompiledPlan:
        """Applies the plan to a batch.

        Args:
            tokens: The batch.
            heads: Heads of each attention layer of the model.
            windows: A radius in tokens that a layer never exceeds, for models whose stock attention
                is local on some layers (ModernBERT); None where it is not.

        Raises:
            AnnotationError: The batch lacks an annotation that a pattern needs.
            PlanError: The plan names a layer or head that the model lacks.
        """
        on_cpu = tokens.device.type == "cpu"
        padded = not bool(tokens.valid.all()) if on_cpu else True
        tokens = replace(tokens)  # rules are kept for it: embeddings may have changed since
        rules_by_key: dict[Any, LayerRule] = {}
        layers = []
        for index, groups in enumerate(self.resolve(heads)):
            varies = any(pattern.varies_by_layer for _, pattern in groups)
            window = windows[index] if windows else None
            key = (groups, heads[index], window, index if varies else None)
            if key not in rules_by_key:
                rules = tuple((members, rule_of(p, tokens, index)) for members, p in groups)
                rule = LayerRule(rules, heads[index], tokens.valid, padded)
                rules_by_key[key] = rule if window is None else rule.within(window)
            layers.append(rules_by_key[key])
        return CompiledPlan(tuple(layers))

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, for `json.dumps`."""
        entries = [
            {"pattern": str(e.pattern), "layers": e.layers, "heads": e.heads} for e in self.entries
        ]
        shape = {} if self.shape is None else {"shape": list(self.shape)}
        return {"format": FORMAT, **shape, "entries": entries}

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Reads what `to_json` wrote.

        Raises:
            PlanError: It is not a plan.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PlanError(f"not a plan: expected an object with format {FORMAT!r}")
        try:
            entries = [(e["pattern"], e["layers"], e["heads"]) for e in data["entries"]]
        except (KeyError, TypeError):
            raise PlanError("a plan's entries have pattern, layers and heads") from None
        shape = data.get("shape")
        if shape is not None and not (
            isinstance(shape, list) and all(type(count) is int for count in shape)
        ):
            raise PlanError("a plan's shape lists the heads of each layer")
        made_for = None if shape is None else tuple(shape)
        return cls(tuple(entry for e in entries for entry in cls.of(*e).entries), made_for)

    def save(self, path: str | Path) -> None:
        """Writes the plan as JSON, whole or not at all."""
        write_whole(Path(path), json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Reads a plan that `save` wrote.

        Raises:
            PlanError: The file does not hold a plan.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise PlanError(f"cannot read a plan from {path}: {reason(error)}") from None
        return cls.from_json(data)

    @classmethod
    def read(cls, text: str) -> Plan:
        """What a command takes for a plan: a pattern for all layers, or the JSON file of a plan.

        Raises:
            PlanError: See `load`.
            PatternError: See `of`.
        """
        return cls.load(text) if text.endswith(".json") else cls.of(text)

    def __str__(self) -> str:
        """A line an entry."""
        return "\n".join(_line(entry, _named) for entry in self.entries)


def _line(entry: Entry, named: Callable[[str, str], str]) -> str:
    """An entry, its selections named by a noun and their text."""
    heads = "" if entry.heads == ":" else f", {named('head', entry.heads)}"
    return f"{named('layer', entry.layers)}{heads}: {entry.pattern}"


def _plural(noun: str, selection: str) -> str:
    return f"{noun}s {selection}"


def _named(noun: str, selection: str) -> str:
    """A selection with its noun: `layer 0`, `layers 0,2`."""
    return f"{noun} {selection}" if selection.lstrip("-").isdigit() else _plural(noun, selection)


def _check_own(what: str, **selections: Selection) -> None:
    for name, selection in selections.items():
        if spell_selection(selection) != ":":
            raise PlanError(
                f"{name}={spell_selection(selection)!r} goes with a single pattern; "
                f"this {what} names its own {name}"
            )


def _spell_shape(shape: Sequence[int] | None) -> str:
    counts = sorted(set(shape or ()))
    return f"{counted(len(shape or ()), 'layer')} of {' or '.join(map(str, counts))} heads"


def _chosen(text: str, count: int, what: str) -> list[int]:
    chosen = select_indices(text, count, what)
    if not chosen:
        raise PlanError(
            f"{what} selection {text!r} names none of the model's {count}; write '6:', '0,2' or ':'"
        )
    return chosen


def _grouped(patterns: Sequence[Pattern]) -> Groups:
    groups: dict[Pattern, list[int]] = {}
    for head, pattern in enumerate(patterns):
        groups.setdefault(pattern, []).append(head)
    return tuple((tuple(members), pattern) for pattern, members in groups.items())
