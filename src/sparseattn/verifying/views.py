"""What can be looked at: the outputs of tokens, one vector for a text, or a model's layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseattn.errors import DataError
from sparseattn.models.encoder import encoder_of
from sparseattn.verifying.judging import Pairs
from sparseattn.verifying.layers import attention_outputs, first_inputs
from sparseattn.verifying.reach import Reach
from sparseattn.verifying.subject import Subject
from sparseattn.verifying.targets import Outputs, Run
from sparseattn.verifying.texts import Text, Vocabulary

__all__ = ["Changed", "Measured", "layer_pairs", "measured", "model_pairs", "token_pairs"]

#: Tokens of a batch, and texts of one.
_TOKENS, _TEXTS = 8192, 24


@dataclass(frozen=True, eq=False)
class Changed:
    """A text, and copies of it with one token changed in each.

    Attributes:
        places: The token of each copy.
        copies: The copies.
        reach: What the plan allows in the text.
        reaches: What it allows in the text or in a copy.
        full: Whether each layer allows every pair.
    """

    text: Text
    places: tuple[int, ...]
    copies: tuple[Text, ...]
    reach: Reach
    reaches: tuple[Reach, ...]
    full: tuple[bool, ...]

    @classmethod
    def of(
        cls, text: Text, vocabulary: Vocabulary, subject: Subject, places: Sequence[int]
    ) -> Changed:
        """Changes a text at some places, as far as there are other tokens to put there."""
        compiled = subject.compile(text.columns)
        reach = Reach.of(compiled)
        copies = {place: vocabulary.changed(text, [place]) for place in places}
        kept = {place: copy for place, copy in copies.items() if copy is not None}
        if not kept:
            raise DataError(
                f"no token of the text {str(text.source)[:40]!r} can be changed without changing "
                "those beside it; give texts of common words, or lists of token ids"
            )
        reaches = [subject.joined(reach, copy, place) for place, copy in kept.items()]
        full = tuple(rule.is_full for rule in compiled.layers)
        return cls(text, tuple(kept), tuple(kept.values()), reach, tuple(reaches), full)

    def effects(
        self, starts: Tensor | None = None, difference: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """How much each copy changes the last layer's outputs.

        Args:
            starts: How much it changes the first layer's inputs; its own token by default.
                Shape: [length, copies].
            difference: What it really changed, to see how much comes from attention.
                Shape: [length, copies].

        Returns:
            0 for out of reach. Shape: [length, copies].
        """
        if starts is None:
            starts = torch.eye(len(self.text), dtype=torch.float64)[:, list(self.places)]
        effects = []
        for index, (place, reach) in enumerate(zip(self.places, self.reaches, strict=True)):
            part = 0.5
            if difference is not None:
                part = reach.part_of_attention(place, difference[:, index])
            effects.append(reach.changed_by(starts[:, index], part))
        return np.asarray(torch.stack(effects, dim=1).numpy())

    def distances(self) -> NDArray[np.int64]:
        """Tokens between each output and each changed token. Shape: [length, copies]."""
        distance: NDArray[np.int64] = np.arange(len(self.text))[:, None] - np.array(self.places)
        return np.abs(distance)


@dataclass(frozen=True, eq=False)
class Measured:
    """What came out for copies of a text.

    Attributes:
        before: For the unchanged text, where each copy stood. Shape: [copies, ...].
        after: For the copies. Shape: [copies, ...].
        noise: The largest difference where nothing had changed.
    """

    before: Outputs
    after: Outputs
    noise: float


def measured(run: Run, text: Text, copies: Sequence[Text]) -> Measured:
    """Runs a text and its copies, each copy where the unchanged text stood before."""
    size = max(2, min(_TEXTS, _TOKENS // len(text))) - 1
    before, after, noise = [], [], 0.0
    clean: Outputs = np.empty(0)
    for start in range(0, len(copies), size):
        chunk = copies[start : start + size]
        if len(clean) != len(chunk) + 1:
            clean = np.stack(run([text] * (len(chunk) + 1)))
        changed = np.stack(run([text, *chunk]))
        noise = max(noise, *(float(np.abs(x - clean[0]).max()) for x in (*clean, changed[0])))
        before.append(clean[1:])
        after.append(changed[1:])
    return Measured(np.concatenate(before), np.concatenate(after), noise)


def token_pairs(changed: Changed, seen: Measured, starts: Tensor | None = None) -> Pairs:
    """The outputs of tokens under each change."""
    difference = np.abs(seen.after - seen.before).max(axis=2).T
    return _pairs(
        changed.effects(starts, difference),
        changed.distances(),
        difference,
        seen.noise,
        seen.before,
    )


def _pairs(
    expected: NDArray[np.float64],
    distance: NDArray[np.int64],
    difference: NDArray[np.float64],
    noise: float,
    outputs: Outputs,
) -> Pairs:
    scale = float(np.abs(outputs).max())
    return Pairs(expected.ravel(), distance.ravel(), difference.ravel(), noise, scale)


# --- torch models


def model_pairs(model: Any, subject: Subject, changed: Changed) -> Pairs:
    """The last outputs of a torch model's tokens."""
    encoder, layers = encoder_of(model), subject.layers_of(model)
    inputs: list[Tensor] = []

    def run(texts: Sequence[Text]) -> list[Outputs]:
        columns = _stacked([subject.columns(text, model) for text in texts])
        first, outputs = first_inputs(encoder, layers, columns)
        inputs.append(first.double().cpu())
        return list(outputs.double().cpu().numpy())

    seen = measured(run, changed.text, changed.copies)
    clean, other = torch.cat([x[1:] for x in inputs[::2]]), torch.cat([x[1:] for x in inputs[1::2]])
    starts = (clean != other).any(dim=2).double().T
    return token_pairs(changed, seen, starts)


def layer_pairs(model: Any, subject: Subject, changed: Changed, count: int) -> list[Pairs]:
    """The attention outputs of each layer of a torch model."""
    encoder, layers = encoder_of(model), subject.layers_of(model)
    columns, length = subject.columns(changed.text, model), len(changed.text)
    places = sorted({0, length - 1, *changed.text.spread(count)})
    size = max(2, min(_TEXTS, _TOKENS // length)) - 1
    parts: list[list[Pairs]] = [[] for _ in layers]
    for start in range(0, len(places), size):
        chunk = places[start : start + size]
        copies = _stacked([columns] * (len(chunk) + 1))
        clean = attention_outputs(encoder, layers, copies, [None] * (len(chunk) + 1))
        after = attention_outputs(encoder, layers, copies, [None, *chunk])
        distance = np.abs(np.arange(length)[:, None] - np.array(chunk)[None])
        for index, share in enumerate(changed.reach.layers):
            before, other = (x[index].double().cpu().numpy() for x in (clean, after))
            noise = max(float(np.abs(x - before[0]).max()) for x in (*before, other[0]))
            difference = np.abs(other[1:] - before[1:]).max(axis=2).T
            expected = share[:, chunk].numpy()
            parts[index].append(_pairs(expected, distance, difference, noise, before))
    return [Pairs.joined(each) for each in parts]


def _stacked(columns: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name] for each in columns]) for name in columns[0]}
