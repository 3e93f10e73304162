"""One vector for a text: what it shows of who attends to whom, pooled though it is.

A vector made of one token's output changes with the tokens that reach that one. A mean over tokens
changes with all of them; but two changes that reach no output in common add up: with x and y
changed, `v(x, y) = v(x, 0) + v(0, y) - v(0, 0)`. Divided by their norms, these four still lie in a
space of three dimensions, so that is what is tested; a linear layer after the pooling does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparseattn.errors import DataError
from sparseattn.verifying.changes import Changed, Measured, measured
from sparseattn.verifying.judging import Array, Check, Pairs, judge
from sparseattn.verifying.reach import Reach
from sparseattn.verifying.subject import Subject
from sparseattn.verifying.targets import Run
from sparseattn.verifying.texts import Text, Vocabulary

#: Where the first of two blocks ends, and the part of a text that a block is.
_STARTS, _BLOCK = 3, 8

#: What is left, of the usual effect, of one that came through several layers' windows.
_FADED = 0.25

#: A text with one block of tokens changed, with another, and with both.
_Copies = tuple[Text, Text, Text]


def changed_for(text: Text, vocabulary: Vocabulary, subject: Subject, count: int) -> Changed:
    """Changes tokens all over a text, and at the edges of what reaches its ends."""
    reach = Reach.of(subject.compile(text.columns))
    chosen = set(text.spread(count))
    for token in (0, len(text) - 1):
        within = reach.sources_of(token).nonzero().flatten()
        for edge in (int(within[0]), int(within[-1])):
            chosen |= {edge - 1, edge, edge + 1}
    return Changed.of(text, vocabulary, subject, sorted(chosen & set(text.ordinary)))


def check_vectors(run: Run, texts: Sequence[Changed], vocabulary: Vocabulary) -> Check:
    """Finds out what a vector is made of, and judges by that."""
    full = all(texts[0].full)
    singles = [_single(run, changed) for changed in texts]
    pairs = Pairs.joined(singles)
    tolerance = judge("", pairs).tolerance
    for changed, single in zip(texts, singles, strict=True):
        _refuse_cut(run, changed, single, tolerance, vocabulary)
    silent = pairs.difference <= tolerance
    if silent.any() and not silent.all():
        return judge("vector, made of one token's output", pairs, full=full, fading=True)
    joint = Pairs.joined([_joint(run, changed, vocabulary) for changed in texts])
    return judge("vector, made of many tokens' outputs", joint, full=full, exact=False)


def _refuse_cut(
    run: Run, changed: Changed, single: Pairs, tolerance: float, vocabulary: Vocabulary
) -> None:
    """Raises a DataError where what runs reads but the beginning of a text.

    All tokens up to some change the vector, not those that reach a first token's output, and the
    last of them as much as the others: what came through several layers' windows would fade.
    """
    seen, text = single.difference > tolerance, changed.text
    count = int(seen.sum())
    as_planned = bool((seen == (single.expected > 0)).all())
    if as_planned or count in (0, len(seen)) or not seen[:count].all():
        return
    last, silent = changed.places[count - 1 : count + 1]
    between = [place for place in text.ordinary if last < place < silent]
    found = {place: vocabulary.changed(text, [place]) for place in between}
    copies = {place: copy for place, copy in found.items() if copy is not None}
    effects = {last: float(single.difference[count - 1])}
    if copies:
        more = measured(run, text, list(copies.values()))
        effects |= zip(copies, np.linalg.norm(more.after - more.before, axis=1), strict=True)
    last = max(place for place, effect in effects.items() if effect > tolerance)
    usual = float(np.median(single.difference[seen]))
    if len(changed.reach.layers) > 1 and effects[last] > _FADED * usual:
        raise DataError(
            f"a text of {len(text):,} tokens seems to be cut after about {last + 1:,}: no later "
            "one changes its vector; give shorter texts, or let what runs read longer ones"
        )


def _single(run: Run, changed: Changed) -> Pairs:
    """Single changes, taking the vector for the output of the token that they are nearest to."""
    seen = measured(run, changed.text, changed.copies)
    difference = np.linalg.norm(seen.after - seen.before, axis=1)
    places, length = np.array(changed.places), len(changed.text)
    centre = np.average(places, weights=difference) if difference.any() else 0
    token = 0 if centre < length / 2 else length - 1
    effects = changed.effects()[token]
    return Pairs(effects, np.abs(places - token), difference, *_noise_and_scale(seen))


def _noise_and_scale(seen: Measured) -> tuple[float, float]:
    """The noise of a vector's length, and the largest length."""
    noise = seen.noise * float(np.sqrt(seen.before.shape[1]))
    return noise, float(np.linalg.norm(seen.before, axis=1).max())


def _joint(run: Run, changed: Changed, vocabulary: Vocabulary) -> Pairs:
    """Two blocks of tokens: what changing both does beyond what each does alone."""
    found = list(_joints(changed, vocabulary))
    if not found:
        raise DataError("no two blocks of tokens can be changed; give longer texts, or token ids")
    joints, expected, distance = zip(*found, strict=True)
    copies = {tuple(copy.ids): copy for joint in joints for copy in joint}
    seen = measured(run, changed.text, list(copies.values()))
    after = dict(zip(copies, seen.after, strict=True))
    difference = [
        interaction(seen.before[0], *(after[tuple(copy.ids)] for copy in joint)) for joint in joints
    ]
    noise, scale = _noise_and_scale(seen)
    arrays = np.array(expected), np.array(distance), np.array(difference)
    return Pairs(*arrays, 2 * noise, scale)  # of four vectors


def _joints(changed: Changed, vocabulary: Vocabulary) -> Iterator[tuple[_Copies, float, int]]:
    """Blocks one, two, four and so on tokens apart, and the nearest that share no output.

    Yields:
        Their copies; what they share, 0 where they reach no output in common; tokens between them.
    """
    text, reach = changed.text, changed.reach
    size = max(1, len(text) // _BLOCK)
    for start in text.spread(_STARTS):
        first = [place for place in text.ordinary if start - size < place <= start]
        effect = reach.changed_by_tokens(first).sum(dim=1)
        far = (reach.sources_of(effect > 0) == 0).nonzero().flatten() - start
        apart = [int(step) for step in far if step > 0][:1]
        for step in [*(1 << power for power in range(len(text).bit_length())), *apart]:
            ahead = range(start + step, start + step + size)
            second = [place for place in text.ordinary if place in ahead]
            if second and (copies := _copies(vocabulary, text, first, second)):
                yield copies, float(effect @ reach.changed_by_tokens(second).sum(dim=1)), step


def _copies(
    vocabulary: Vocabulary, text: Text, first: Sequence[int], second: Sequence[int]
) -> _Copies | None:
    """The text with one block changed, with the other, and with the same tokens in both."""
    one, other = vocabulary.changed(text, first), vocabulary.changed(text, second)
    both = None if one is None else vocabulary.changed(one, second)
    if one is None or other is None or both is None:
        return None
    same = all(both.ids[place] == other.ids[place] for place in second)
    return (one, other, both) if same else None


def interaction(neither: Array, first: Array, second: Array, both: Array) -> float:
    """How far the fourth of four vectors is from the space of the others. Shape of each: [width].

    0 if the two changes add up, whether or not each vector was divided by its norm.
    """
    basis, _ = np.linalg.qr(np.stack([neither, first - neither, second - neither], axis=1))
    rest = both - neither
    for _ in range(2):  # once more for what rounding left
        rest = rest - basis @ (basis.T @ rest)
    return float(np.linalg.norm(rest))
