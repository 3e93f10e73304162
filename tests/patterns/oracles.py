"""What each pattern allows in one unpadded text, spelled out pair by pair in plain Python.

Each oracle returns a test of one pair (q, k), the pattern's own view: adding the diagonal is the
plan's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from sparseattn.annotations import TAGS
from sparseattn.pattern import Difference, Intersection, Union
from tests.patterns.batches import EMBEDDING, Text

Pair = Callable[[int, int], bool]


def _neighbor(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: abs(q - k) <= p.radius


def _dilated(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: any(k == q + step * p.dilation for step in range(-p.radius, p.radius + 1))


def _strided(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: any(abs(q - k) == times * p.stride for times in range(len(t)))


def _block(p: Any, t: Text, layer: int) -> Pair:
    blocks = [range(start, start + p.size) for start in range(0, len(t), p.size)]
    return lambda q, k: any(q in block and k in block for block in blocks)


def _self(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: q == k


def _full(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: True


def _global(p: Any, t: Text, layer: int) -> Pair:
    def chosen(i: int) -> bool:
        kind = ("cls" in p.kinds and i == 0) or ("sep" in p.kinds and t.separators[i])
        return kind or i < p.first or i in p.positions

    return lambda q, k: (p.rows and chosen(q)) or (p.columns and chosen(k))


def _segment(p: Any, t: Text, layer: int) -> Pair:
    """Reads from left to right: a text goes on until something stands behind its separators."""
    number, open_, ended, text = [], False, False, 0
    for special, separator in zip(t.special, t.separators, strict=True):
        if not separator:
            text += ended
            open_, ended = True, False
        ended = ended or (separator and open_)
        number.append(-1 if special and not separator else text)
    return lambda q, k: p.query in (None, number[q]) and p.key in (None, number[k])


def _sentence(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: t.sentences[q] != -1 and t.sentences[q] == t.sentences[k]


def _same_word(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: t.words[q] != -1 and t.words[q] == t.words[k]


def _part_of_speech(p: Any, t: Text, layer: int) -> Pair:
    return lambda q, k: t.tags[k] != -1 and TAGS[t.tags[k]] in p.keep


def _dependency(p: Any, t: Text, layer: int) -> Pair:
    """Breadth first along the edges of the tree, from each word."""
    head = {w: h for w, h in zip(t.words, t.heads, strict=True) if w != -1}
    near = {w: {head[w], *(o for o in head if head[o] == w)} for w in head}

    def reached(word: int) -> set[int]:
        found = edge = {word}
        for _ in range(p.hops):
            edge = {other for one in edge for other in near[one]} - found
            found = found | edge
        return found

    within = {word: reached(word) for word in head}
    return lambda q, k: t.words[k] != -1 and t.words[k] in within.get(t.words[q], ())


def _similarity(p: Any, t: Text, layer: int) -> Pair:
    def cosine(i: int, j: int) -> float:
        a, b = EMBEDDING[t.ids[i]].tolist(), EMBEDDING[t.ids[j]].tolist()
        scale = math.hypot(*a) * math.hypot(*b)
        return round(sum(x * y for x, y in zip(a, b, strict=True)) / scale, 6) if scale else 0.0

    lexical = [i for i in range(len(t)) if not t.special[i]]
    if p.other_sentence:
        lexical = [i for i in lexical if t.sentences[i] != -1]
    others = {
        q: [
            k for k in lexical if (t.sentences[k] != t.sentences[q] if p.other_sentence else k != q)
        ]
        for q in lexical
    }
    nearest = {
        q: sorted(found, key=lambda k: (-cosine(q, k), k))[: p.k] for q, found in others.items()
    }
    return lambda q, k: k in nearest.get(q, [])


def drawn(seed: int, layer: int, degrees: list[int]) -> list[set[int]]:
    """Random keys, one at a time; first the queries that want few, then those that want most."""
    n = len(degrees)
    if n < 2:
        return [set() for _ in degrees]
    bits = np.random.PCG64(np.random.SeedSequence([seed, layer, n]))
    wanted = [min(degree, n - 1) for degree in degrees]
    few = [q for q in range(n) if wanted[q] <= (n - 1) / 2]
    others = [[k for k in range(n) if k != q] for q in range(n)]
    found: list[set[int]] = [set() for _ in degrees]
    while any(len(found[q]) < wanted[q] for q in few):
        for q in few:
            for _ in range(wanted[q] - len(found[q])):
                found[q].add(others[q][int(bits.random_raw()) % (n - 1)])
    for q in range(n):
        if q not in few:
            order = [(int(bits.random_raw()), k) for k in others[q]]
            found[q] = {k for _, k in sorted(order)[: wanted[q]]}
    return found


def _random(p: Any, t: Text, layer: int) -> Pair:
    layer, n = layer if p.per_layer else 0, len(t)
    keys = drawn(p.seed, layer, [p.drawn or p.degree] * n)
    if p.drawn:
        bits = np.random.PCG64(np.random.SeedSequence([p.seed, layer, n, p.drawn]))
        orders = [{k: int(bits.random_raw()) for k in sorted(some)} for some in keys]
        keys = [set(sorted(order, key=order.__getitem__)[: p.degree]) for order in orders]
    return lambda q, k: k in keys[q]


def _matched_random(p: Any, t: Text, layer: int) -> Pair:
    inner, n = oracle(p.pattern, t, layer), len(t)
    if p.keep is not None:
        return _matched_beside(p, t, layer)
    degrees = [sum(q == k or inner(q, k) for k in range(n)) for q in range(n)]
    wanted = [0 if degree == n else degree - 1 for degree in degrees]
    keys = drawn(p.seed, layer if p.per_layer else 0, wanted)
    return lambda q, k: q == k or degrees[q] == n or k in keys[q]


def _matched_beside(p: Any, t: Text, layer: int) -> Pair:
    inner, kept, n = oracle(p.pattern, t, layer), oracle(p.keep, t, layer), len(t)
    seeds = np.random.SeedSequence([p.seed, layer if p.per_layer else 0, n])
    raw = np.random.PCG64(seeds).random_raw(n * n).reshape(n, n)
    keys = []
    for q in range(n):
        mine = {k for k in range(n) if q == k or kept(q, k)}
        degree = sum(q == k or kept(q, k) or inner(q, k) for k in range(n))
        others = sorted(set(range(n)) - mine, key=lambda k, q=q: raw[q, k] >> np.uint64(11))
        keys.append(mine | set(others[: degree - len(mine)]))
    return lambda q, k: k in keys[q]


def _bigbird(p: Any, t: Text, layer: int) -> Pair:
    keys = drawn(p.seed, layer, [p.random] * len(t))
    mix = _longformer(p, t, layer)
    return lambda q, k: k in keys[q] or mix(q, k)


def _longformer(p: Any, t: Text, layer: int) -> Pair:
    if isinstance(p.globals, int):
        first = set(range(p.globals))
    else:
        first = {0} if "cls" in p.globals else set()
        first |= {i for i in range(len(t)) if "sep" in p.globals and t.separators[i]}
    return lambda q, k: abs(q - k) <= p.radius or q in first or k in first


def _elastic(p: Any, t: Text, layer: int) -> Pair:
    exact = Fraction(p.share) * len(t)
    radius = math.floor(exact + Fraction(1, 2))
    return lambda q, k: abs(q - k) <= radius


def _irregular(p: Any, t: Text, layer: int) -> Pair:
    """The n-th block of 32 places draws one number from each 32nd of [0, 1), shuffled."""
    bits = np.random.PCG64(np.random.SeedSequence([p.seed]))
    radius: list[int] = []
    while len(radius) < len(t):
        order, within = ([int(bits.random_raw()) for _ in range(32)] for _ in range(2))
        shuffled = sorted(range(32), key=lambda place: order[place])
        for stratum, raw in zip(shuffled, within, strict=True):
            at = (stratum + (raw >> 11) * 2.0**-53) / 32 * sum(p.weights)
            reached = [sum(p.weights[: i + 1]) > at for i in range(len(p.radii))]
            radius.append(p.radii[reached.index(True)])
    return lambda q, k: abs(q - k) <= radius[q]


ORACLES: dict[str, Callable[[Any, Text, int], Pair]] = {
    "bigbird": _bigbird,
    "block": _block,
    "dependency": _dependency,
    "dilated": _dilated,
    "elastic": _elastic,
    "full": _full,
    "global": _global,
    "irregular": _irregular,
    "longformer": _longformer,
    "matched_random": _matched_random,
    "neighbor": _neighbor,
    "part_of_speech": _part_of_speech,
    "random": _random,
    "same_word": _same_word,
    "segment": _segment,
    "self": _self,
    "sentence": _sentence,
    "similarity": _similarity,
    "strided": _strided,
}


def oracle(pattern: Any, text: Text, layer: int) -> Pair:
    """The pairs of a pattern, which may be joined from others."""
    if isinstance(pattern, Union | Intersection | Difference):
        left, right = (oracle(side, text, layer) for side in (pattern.left, pattern.right))
        if isinstance(pattern, Union):
            return lambda q, k: left(q, k) or right(q, k)
        if isinstance(pattern, Intersection):
            return lambda q, k: left(q, k) and right(q, k)
        return lambda q, k: left(q, k) and not right(q, k)
    return ORACLES[pattern.name](pattern, text, layer)
