"""The view *Masks*: what a plan keeps of a text, read from the forward pass that it was run in."""

from __future__ import annotations

import warnings
from base64 import b64encode
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseattn.app.asked import Asked
from sparseattn.app.jobs import Kept
from sparseattn.app.reader import PAIRS, Passage, Reader, Run, plan_from
from sparseattn.causes import causes, kind
from sparseattn.errors import PlanError, SparseAttnError
from sparseattn.models.sparsify import sparsify
from sparseattn.pattern import Pattern, rule_of
from sparseattn.plan import Plan
from sparseattn.selection import select_indices
from sparseattn.words import counted

#: Tokens up to which the whole matrix is sent; of longer texts a tile of so many, and a map.
WHOLE, TILE, MAP = 512, 256, 256

#: The bit of a pair that was computed; those below say by which causes.
EXECUTED = 1 << 7

#: The plan that keeps every pair.
DENSE = Plan.of("full()")


class _Shown:
    """One text under one plan on one model."""

    def __init__(self, reader: Reader, asked: Asked, kept: Kept) -> None:
        self.reader, self.kept = reader, kept
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.plan = plan_from(asked.plan)
            sparsify(reader.encoder, self.plan, tokenizer=reader.tokenizer)
        self.notices = [str(warning.message) for warning in caught]
        self.heads = reader.state.heads
        (self.layer,) = select_indices(str(asked.layer), len(self.heads), "layer")
        (self.head,) = select_indices(str(asked.head), self.heads[self.layer], "head")
        groups = self.plan.resolve(self.heads)[self.layer]
        self.pattern = next(pattern for members, pattern in groups if self.head in members)
        self.texts = asked.text, asked.pair if asked.pair and asked.pair.strip() else None
        key = ("passage", reader.name, *self.texts, self.plan.needs & {"tags"})
        self.passage: Passage = kept.get(
            key,
            lambda: reader.read(*self.texts, self.plan.needs),
            lambda passage: 100 * len(passage),
        )

    def run(self, plan: Plan) -> Run:
        """The passage run under a plan, this one's or the dense one."""
        watched = self.reader.watch(self.layer, len(self.passage))
        key = (self.reader.name, *self.texts, plan.spelled, watched)
        run: Run = self.kept.get(
            key,
            lambda: self.reader.run(self.passage, plan, watched),
            lambda run: run.bytes,
        )
        return run


def masks(reader: Reader, asked: Asked, kept: Kept) -> dict[str, Any]:
    """The tokens of a text, the pairs of one head and the attention on them, and what was counted.

    Raises:
        DataError: A text that cannot be read.
        PatternError: The plan does not parse; likewise PlanError, also where it does not fit.
    """
    shown = _Shown(reader, asked, kept)
    passage, length = shown.passage, len(shown.passage)
    run = shown.run(shown.plan)
    tile = _tile(asked, length)
    picture = {
        "model": reader.name,
        "layer": shown.layer,
        "head": shown.head,
        "pattern": str(shown.pattern),
        "causes": [{"kind": c.kind, "pattern": str(c)} for c in causes(shown.pattern)],
        "grid": heads_of(shown.plan, shown.heads),
        "tokens": _tokens(passage),
        "tile": tile,
        "mask": _packed(_connections(run, shown.pattern, shown.layer, shown.head, *_ranges(tile))),
        "attention": _attention(shown, run, tile),
        "counts": _counts(shown, run),
        "notices": [*shown.notices, *_cut(passage)],
    }
    if length > WHOLE:
        step = -(-length // MAP)
        pooled = _pooled(run, shown.pattern, shown.layer, shown.head, step)
        picture["map"] = {"side": len(pooled), "step": step, "mask": _packed(pooled)}
    return picture


def reach(reader: Reader, asked: Asked, kept: Kept) -> dict[str, Any]:
    """From which tokens a token can have heard after each layer, by the masks that were executed.

    Returns:
        `layers`: for each layer the indices of these tokens, itself included.

    Raises:
        PlanError: There is no such token.
    """
    shown = _Shown(reader, asked, kept)
    length, token = len(shown.passage), asked.token
    if not 0 <= token < length:
        raise PlanError(f"there is no token {token} in a text of {length}")
    unions = shown.run(shown.plan).unions
    heard = []
    for last in range(len(unions)):
        reached = np.array([token])
        for union in reversed(unions[: last + 1]):
            bits = np.bitwise_or.reduce(union[reached], axis=0)
            reached = np.flatnonzero(np.unpackbits(bits, count=length))
        heard.append(reached.tolist())
    return {"token": token, "layers": heard}


def heads_of(plan: Plan, heads: list[int]) -> dict[str, Any]:
    """Which pattern, and of which kinds, stands on each head."""
    patterns: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    grid = []
    for layer, groups in enumerate(plan.resolve(heads)):
        row = [0] * heads[layer]
        for members, pattern in groups:
            name = str(pattern)
            if name not in patterns:
                patterns[name] = len(listed)
                kinds = [cause.kind for cause in causes(pattern)] or [kind(pattern)]
                listed.append({"pattern": name, "kinds": kinds})
            for head in members:
                row[head] = patterns[name]
        grid.append(row)
    return {"patterns": listed, "grid": grid}


def _tokens(passage: Passage) -> dict[str, Any]:
    return {
        "labels": passage.labels,
        "spans": passage.spans,
        "sides": passage.sides,
        "words": passage.column("word_index"),
        "sentences": passage.column("sentence_index"),
        "heads": passage.column("head_index"),
    }


def _tile(asked: Asked, length: int) -> dict[str, int]:
    """Which queries and keys are sent."""
    size = length if length <= WHOLE else TILE
    top, left = (min(max(0, at), length - size) for at in (asked.top, asked.left))
    return {"top": top, "left": left, "size": size}


def _ranges(tile: dict[str, int]) -> tuple[Tensor, Tensor]:
    top, left, size = tile["top"], tile["left"], tile["size"]
    return torch.arange(top, top + size), torch.arange(left, left + size)


def _attention(shown: _Shown, run: Run, tile: dict[str, int]) -> dict[str, Any]:
    """Attention of the model as it is, and under the plan, in 65,535ths."""
    queries, keys = _ranges(tile)
    found: dict[str, Any] = {}
    try:
        for name, each in (("dense", shown.run(DENSE)), ("plan", run)):
            weights = each.done.weights(shown.layer, queries, [shown.head])[0, 0, :, keys]
            found[name] = _packed((weights * 65535).round().to(torch.int32).numpy().astype("<u2"))
    except (SparseAttnError, KeyError) as error:
        return {"why": f"this model gives no attention: {error}"}
    return found


def _counts(shown: _Shown, run: Run) -> dict[str, Any]:
    """Degree and sparsity of the head, of its layer and of all of them, of what was executed."""
    own = run.counts[shown.layer]
    parts = {"head": own[[shown.head]], "layer": own, "plan": torch.cat(run.counts)}
    length = len(shown.passage)
    return {
        name: {
            "allowed": int(heads.sum()),
            "valid": len(heads) * length**2,
            "sparsity": 1 - int(heads.sum()) / (len(heads) * length**2),
            "degree": int(heads.sum()) / (len(heads) * length),
        }
        for name, heads in parts.items()
    }


def _cut(passage: Passage) -> list[str]:
    if not passage.cut:
        return []
    were = "was" if passage.cut == 1 else "were"
    rest = f"the last {counted(passage.cut, 'token')} {were} left out"
    return [f"the text was cut: {passage.why}, and {rest}"]


def _packed(values: Tensor | np.ndarray[Any, Any]) -> str:
    """Numbers as base64 of their bytes, row by row."""
    array = values.numpy() if isinstance(values, Tensor) else values
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _connections(
    run: Run, pattern: Pattern, layer: int, head: int, queries: Tensor, keys: Tensor
) -> Tensor:
    """The pairs that a head computed, with their causes.

    Args:
        run: The forward pass; a pair that it did not compute is 0, whatever the pattern says.
        pattern: The pattern of the head; says only why a pair is there.
        layer: Its layer.
        head: The head.
        queries: Indices. Shape: [queries], int64.
        keys: Indices. Shape: [keys], int64.

    Returns:
        Bits: `EXECUTED`, and one for each of `causes`. Shape: [queries, keys], uint8.
    """
    executed = run.layers[layer].allowed(queries, keys, [head])[0, 0]
    bits = executed.to(torch.uint8) * EXECUTED
    for at, cause in enumerate(causes(pattern)):
        for part in cause.patterns:
            allowed = rule_of(part, run.tokens, layer).allowed(queries, keys)[0]
            because = allowed[head if allowed.shape[0] > 1 else 0] & executed
            bits |= because.to(torch.uint8) << at
    return bits


def _pooled(run: Run, pattern: Pattern, layer: int, head: int, step: int) -> Any:
    """The whole matrix of a long text at a glance: each entry joins the bits of a square of pairs.

    Shape: [length / step, length / step], rounded up, uint8.
    """
    length = run.tokens.length
    side = -(-length // step)
    keys = torch.arange(length)
    whole = np.zeros((side, side), np.uint8)
    rows = max(1, PAIRS // (length * step))
    for top in range(0, side, rows):
        queries = keys[top * step : (top + rows) * step]
        bits = _connections(run, pattern, layer, head, queries, keys).numpy()
        padded = np.pad(bits, ((0, -len(queries) % step), (0, side * step - length)))
        blocks = padded.reshape(-1, step, side, step)
        whole[top : top + len(blocks)] = np.bitwise_or.reduce(blocks, axis=(1, 3))
    return whole
