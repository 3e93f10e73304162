"""Predicting how fast a plan makes a model, from short runs.

The time is taken as `rest + layers * attention`. The rest is a line over the number of tokens,
through runs of the model without attention on few and on many texts. Dense and sparse attention
are each a line over the score entries that they compute, through runs of one layer at two lengths.

Each point is the shortest of its runs: noise only ever adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sparseattn.auto import select
from sparseattn.backend import Call, backend
from sparseattn.bench.models import PROBE, BenchModel, Times, run
from sparseattn.bench.timing import free_attention, samples, step
from sparseattn.errors import BackendError, UnsupportedModelError
from sparseattn.models.encoder import attention_dropout
from sparseattn.plan import Plan
from sparseattn.rules import LayerRule

#: Tokens that one layer of attention is run at.
_SHORT, _LONG = 256, 1024
#: Texts of `PROBE` tokens that the model without attention is run on. The line through them goes
#: as far as the lengths that matter and beyond the processor's nearer caches.
_FEW, _MANY = 1, 8
#: Layers of dense attention that are run at a time where scores are stored.
_LAYERS = 6
#: Runs of each, and of the one with many texts.
_REPEATS, _REPEATS_MANY = 5, 3
#: Lengths tried for the one from which a plan pays.
_LADDER = tuple(int(64 * 2 ** (i / 2)) for i in range(19))
#: A plan pays from this speed-up on: less is lost in the noise.
_PAYS = 1.05


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
        busy: See `samples`.
    """

    subject: BenchModel
    plan: Plan
    texts: int = 1
    trains: bool = False
    busy: bool = False

    def with_plan(self, plan: Plan) -> Predictor:
        """The same for another plan; what does not depend on the plan is not measured again."""
        other = replace(self, plan=plan)
        vars(other).update(_rest=self._rest, _dense=self._dense, _curves=self._curves)
        return other

    def at(self, length: int) -> Times:
        """The forecast for one length."""
        rest = self._rest(self.texts * length)
        layers = self.subject.layers
        entries = self.texts * self.subject.heads * length**2
        dense = self._dense(entries)
        sparse, names = 0.0, []
        for layer, rule in enumerate(self._rules(self.texts, length)):
            chosen, _ = select("auto", self._probe(length, rule))
            names.append(chosen.name)
            cost = self._sparse(chosen.name, layer)(chosen.work(rule))
            # `masked` does what dense attention does, and more: less time would be noise.
            sparse += max(cost, dense) if chosen.name == "masked" else cost
        return Times(
            length, rest + layers * dense, rest + sparse, rest, tuple(dict.fromkeys(names))
        )

    @property
    def dropout(self) -> float:
        """The model's own dropout of attention weights; 0 in inference."""
        return attention_dropout(self.subject.model.config) if self.trains else 0.0

    @cached_property
    def _rest(self) -> _Curve:
        batches = [self.subject.batch(texts, PROBE) for texts in (_FEW, _MANY)]
        with free_attention(self.trains) as name:
            try:
                model = self.subject.sparsified(self.plan, name)
            except BackendError:
                raise UnsupportedModelError(
                    f"{type(self.subject.model).__name__} computes its own attention and takes "
                    "only a mask: it computes every score, so no plan makes it faster"
                ) from None
            runs = {
                key: step(partial(run, model, batch), self.trains)
                for key, batch in zip(("few", "many"), batches, strict=True)
            }
            few, many = self._shortest(runs, {"many": _REPEATS_MANY})
        return _Curve((_FEW * PROBE, few), (_MANY * PROBE, many))

    @cached_property
    def _dense(self) -> _Curve:
        # With dropout every layer stores its scores until the backward pass, in new memory from
        # the system; one layer by itself may reuse memory.
        layers = min(self.subject.layers, _LAYERS) if self.dropout else 1

        def attend(call: Call) -> Tensor:
            outs = [
                scaled_dot_product_attention(
                    call.query, call.key, call.value, dropout_p=call.dropout, scale=call.scale
                )
                for _ in range(layers)
            ]
            return torch.stack(outs) if layers > 1 else outs[0]

        calls = self._calls(0, (_SHORT, _LONG))
        few, many = (seconds / layers for seconds in self._seconds(attend, calls))
        heads = self.subject.heads
        return _Curve((heads * _SHORT**2, few), (heads * _LONG**2, many))

    def _sparse(self, name: str, layer: int) -> _Curve:
        """One layer under the plan; layers of the same patterns share what is measured."""
        key = name, self._patterns[layer]
        if key not in self._curves:
            lengths = (_SHORT, _LONG) if name == "masked" else (_LONG, 2 * _LONG)
            calls = self._calls(layer, lengths)
            few, many = self._seconds(backend(name).attend, calls)
            counts = [backend(name).work(call.rule) for call in calls]
            self._curves[key] = _Curve((counts[0], few), (counts[1], many))
        return self._curves[key]

    @cached_property
    def _curves(self) -> dict[tuple[str, object], _Curve]:
        return {}

    @cached_property
    def _patterns(self) -> list[object]:
        return list(self.plan.resolve([self.subject.heads] * self.subject.layers))

    def _seconds(self, attend: Callable[[Call], Tensor], calls: Sequence[Call]) -> list[float]:
        runs = {str(i): step(partial(attend, c), self.trains) for i, c in enumerate(calls)}
        return self._shortest(runs)

    def _shortest(
        self, runs: Mapping[str, Callable[[], object]], most: Mapping[str, int] | None = None
    ) -> list[float]:
        times = samples(runs, _REPEATS, busy=self.busy, most=most)
        return [min(seconds) for seconds in times.values()]

    def _rules(self, texts: int, length: int) -> tuple[LayerRule, ...]:
        batch = self.subject.batch(texts, length)
        tokens = self.subject.tokens(batch)
        return self.plan.compile(tokens, [self.subject.heads] * self.subject.layers).layers

    def _calls(self, layer: int, lengths: Sequence[int]) -> list[Call]:
        """Attentions of a layer over one text."""
        calls = []
        for length in lengths:
            shape = (1, length, self.subject.heads, self.subject.width)
            states = [torch.ones(shape).requires_grad_(self.trains) for _ in range(3)]
            q, k, v = (x.transpose(1, 2) for x in states)
            rule = self._rules(1, length)[layer]
            calls.append(Call(q, k, v, rule, self.subject.width**-0.5, self.dropout))
        return calls

    def _probe(self, length: int, rule: LayerRule) -> Call:
        """A call to choose a backend for: one number that looks like all, whatever the length."""
        shape = (self.texts, self.subject.heads, length, self.subject.width)
        states = torch.ones(()).requires_grad_(self.trains).expand(shape)
        return Call(states, states, states, rule, 1.0, self.dropout)


def pays_from(predictor: Predictor) -> int | None:
    """The shortest length, of a ladder up to 32,768, from which a plan makes a model faster."""
    start = None
    for length in reversed(_LADDER):
        if predictor.at(length).speedup < _PAYS:
            break
        start = length
    return start
