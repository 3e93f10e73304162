"""Predicting how fast a plan makes a model, from short runs.

A forward pass is taken as `rest + layers * attention`. The rest grows with the number of tokens:
a line through the model without attention at two lengths. Dense and sparse attention each grow with
the score entries that they compute, which a plan states for any length: a line through two lengths
of one layer, with the model's heads. Nothing is run at the lengths that are asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.backends.base import Call, backend, select
from sparseattn.bench.models import Subject, run
from sparseattn.bench.timing import alternate, floor, step
from sparseattn.plan import Plan
from sparseattn.rules import LayerRule
from sparseattn.tokens import TokenBatch

__all__ = ["Forecast", "Predictor", "pays_from"]

#: Tokens that the model without attention and one layer of attention are run at.
_SHORT, _LONG = 256, 1024
#: Runs of each.
_REPEATS = 5
#: Lengths tried for the one from which a plan pays.
_LADDER = tuple(int(64 * 2 ** (i / 2)) for i in range(19))
#: A plan pays from this speed-up on: less is lost in the noise.
_PAYS = 1.05


@dataclass(frozen=True)
class Forecast:
    """What is expected at one length.

    Attributes:
        length: Tokens a text.
        dense: Seconds of the stock model for a batch.
        sparse: Seconds of the sparsified model.
        rest: Seconds of either without attention.
        backends: The backends that the layers would use.
    """

    length: int
    dense: float
    sparse: float
    rest: float
    backends: tuple[str, ...]

    @property
    def speedup(self) -> float:
        """How many times faster the sparsified model is."""
        return self.dense / self.sparse

    @property
    def share(self) -> float:
        """Share of the stock model's time that attention takes, in [0, 1]."""
        return 1 - self.rest / self.dense


@dataclass(frozen=True)
class _Curve:
    """Seconds as a line through two measurements; never falling, never negative."""

    few: tuple[float, float]
    many: tuple[float, float]

    def __call__(self, amount: float) -> float:
        (x0, y0), (x1, y1) = self.few, self.many
        slope = max(0.0, (y1 - y0) / (x1 - x0))
        return max(y0 + slope * (amount - x0), 0.1 * min(y0, y1))


@dataclass
class Predictor:
    """Short measurements of a model, and what follows for a plan.

    Attributes:
        subject: The model.
        plan: The plan.
        texts: Texts a batch.
        trains: Whether to predict a forward and backward pass rather than inference.
        busy: See `alternate`.
    """

    subject: Subject
    plan: Plan
    texts: int = 1
    trains: bool = False
    busy: bool = False

    def at(self, length: int) -> Forecast:
        """The forecast for one length."""
        rest = self._rest(self.texts * length)
        layers = self.subject.layers
        entries = self.texts * self.subject.heads * length**2
        dense = self._dense(entries)
        sparse, names = 0.0, []
        for rule in self._rules(length):
            chosen, _ = select("auto", self._call(length, rule))
            names.append(chosen.name)
            curve = self._sparse(chosen.name)
            sparse += curve(chosen.computed(rule))
        return Forecast(
            length, rest + layers * dense, rest + sparse, rest, tuple(dict.fromkeys(names))
        )

    @property
    def dropout(self) -> float:
        """The model's own dropout of attention weights; 0 in inference."""
        config = self.subject.model.config
        names = ("attention_probs_dropout_prob", "attention_dropout")
        found = [getattr(config, name) for name in names if hasattr(config, name)]
        return float(found[0]) if found and self.trains else 0.0

    @cached_property
    def _rest(self) -> _Curve:
        batches = [self.subject.batch(1, length) for length in (_SHORT, _LONG // 2)]
        with floor() as name:
            model = self.subject.sparsified(self.plan, name)
            runs = {
                str(i): step(partial(run, model, batch), self.trains)
                for i, batch in enumerate(batches)
            }
            seconds = alternate(runs, _REPEATS, busy=self.busy)
        return _Curve((_SHORT, seconds["0"]), (_LONG // 2, seconds["1"]))

    @cached_property
    def _dense(self) -> _Curve:
        def attend(call: Call) -> Tensor:
            return scaled_dot_product_attention(
                call.query, call.key, call.value, dropout_p=call.dropout, scale=call.scale
            )

        calls = [self._call(n, self._rules(n, 1)[0], 1) for n in (_SHORT, _LONG)]
        few, many = self._timed(attend, calls)
        heads = self.subject.heads
        return _Curve((heads * _SHORT**2, few), (heads * _LONG**2, many))

    def _sparse(self, name: str) -> _Curve:
        made = self._curves.get(name)
        if made is None:
            lengths = (_SHORT, _LONG) if name == "masked" else (_LONG, 2 * _LONG)
            calls = [self._call(n, self._rules(n, 1)[0], 1) for n in lengths]
            few, many = self._timed(backend(name).attend, calls)
            counts = [backend(name).computed(call.rule) for call in calls]
            made = self._curves[name] = _Curve((counts[0], few), (counts[1], many))
        return made

    @cached_property
    def _curves(self) -> dict[str, _Curve]:
        return {}

    def _timed(self, attend: Callable[[Call], Tensor], calls: Sequence[Call]) -> list[float]:
        runs = {str(i): step(partial(attend, c), self.trains) for i, c in enumerate(calls)}
        return list(alternate(runs, _REPEATS, busy=self.busy).values())

    def _rules(self, length: int, texts: int | None = None) -> tuple[LayerRule, ...]:
        batch = self.subject.batch(texts or self.texts, length)
        tokens = TokenBatch(batch["attention_mask"].bool(), ids=batch["input_ids"])
        return self.plan.compile(tokens, [self.subject.heads] * self.subject.layers).layers

    def _call(self, length: int, rule: LayerRule, texts: int | None = None) -> Call:
        shape = (texts or self.texts, length, self.subject.heads, self.subject.width)
        q, k, v = (torch.ones(shape).requires_grad_(self.trains).transpose(1, 2) for _ in range(3))
        return Call(q, k, v, rule, self.subject.width**-0.5, self.dropout)


def pays_from(predictor: Predictor) -> int | None:
    """The shortest length, of a ladder up to 32,768, from which a plan makes a model faster."""
    found = None
    for length in reversed(_LADDER):
        if predictor.at(length).speedup < _PAYS:
            break
        found = length
    return found
