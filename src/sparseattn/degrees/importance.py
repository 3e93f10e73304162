"""What a radius is worth to a head: the attention that it keeps, or the output that it keeps.

**Attention** kept is a share of the head's own weights. **Output** kept is how little the model's
output changes, to first order and without labels. With A a head's dense attention, s its scores,
o its context and g the gradient of a number y with respect to o, the gradient with respect to the
scores is `A[q, k] (g[q] . v[k] - g[q] . o[q])`. Keeping only the keys K of a query changes its
context by `sum over K of A[q, k] (v[k] - o[q]) / sum over K of A[q, k]`, exactly, so y changes by

    sum over q of (sum over K of dy/ds[q, k]) / (sum over K of A[q, k]).

With random projections of the output for y, the mean square is the squared change of the output.
One backward pass serves all heads and radii. Unlike the attention kept, this knows what the values
carry (attention to separators often carries nothing), which layers matter, and which tokens the
output is read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.observe import Radii, Seen, watched
from sparseattn.degrees.texts import Texts
from sparseattn.errors import UnsupportedModelError
from sparseattn.plan import Plan

__all__ = ["WORTHS", "kept_attention", "kept_output"]

#: Random projections of the output of each batch.
_PROBES = 4


def kept_attention(
    texts: Texts, menu: Candidates, layers: Sequence[int], tokenizer: Any = None
) -> Tensor:
    """The share of a head's attention that each radius keeps, averaged over queries.

    Over the queries that are not global: those keep everything. Global keys are kept by every
    radius.

    Args:
        texts: What the model attends over.
        menu: Radii and global tokens.
        layers: The layers to look at.
        tokenizer: Tells which tokens are separators, where they are global.

    Returns:
        Not falling along the menu, in [0, 1]. Shape: [layers, heads, entries], float64.

    Raises:
        UnsupportedModelError: The model's attention cannot be seen.
    """
    sums: list[Tensor] = []
    queries = 0
    for seen in watched(texts, Plan.of(menu.pattern(0)), layers, tokenizer):
        radii = Radii(menu, seen.tokens)
        kept = [radii.within(w).sum(dim=(0, 2)).double().cpu() for w in seen.weights]
        sums.append(torch.stack(kept))
        queries += int(radii.counted.sum())
    return torch.stack(sums).sum(dim=0) / max(1, queries)


def kept_output(
    texts: Texts, menu: Candidates, layers: Sequence[int], tokenizer: Any = None
) -> Tensor:
    """How little of the model's output each radius of each head changes.

    The output is the logits of a model with a head, otherwise the last hidden states. The squared
    change is divided by what radius 0 brings about in an average head, and taken from 1.

    Args:
        texts: What the model reads.
        menu: Radii and global tokens.
        layers: The layers to look at.
        tokenizer: Tells which tokens are separators, where they are global.

    Returns:
        Not falling along the menu, at most 1. Shape: [layers, heads, entries], float64.

    Raises:
        UnsupportedModelError: The model's attention cannot be seen, or the model returns neither
            logits nor hidden states.
    """
    draws = torch.Generator().manual_seed(0)
    sums: list[Tensor] = []
    for seen in watched(texts, Plan.of(menu.pattern(0)), layers, tokenizer, gradient=True):
        radii, read = Radii(menu, seen.tokens), _read(seen)
        mass = [radii.within(w).clamp(min=torch.finfo(w.dtype).tiny) for w in seen.weights]
        for probe in range(_PROBES):
            direction = torch.randn(read.shape, generator=draws).to(read)
            gradients = torch.autograd.grad(
                read, seen.biases, direction, retain_graph=probe + 1 < _PROBES
            )
            changes = [
                (radii.within(gradient) / kept).sum(dim=2).double().square().sum(dim=0).cpu()
                for gradient, kept in zip(gradients, mass, strict=True)
            ]
            sums.append(torch.stack(changes))
    changed = torch.stack(sums).sum(dim=0)
    unit = changed[..., 0].mean().clamp(min=torch.finfo(torch.float64).tiny)
    return (1 - changed / unit).cummax(dim=-1).values


def _read(seen: Seen) -> Tensor:
    """What a model is used for, with nought at padding. Shape: [batch, ...]."""
    for name in ("logits", "last_hidden_state", "start_logits"):
        found: Tensor | None = getattr(seen.output, name, None)
        if found is None:
            continue
        if name == "start_logits":
            found = torch.stack([found, seen.output.end_logits], dim=-1)
        if found.shape[1] != seen.tokens.length:
            return found
        return found * seen.tokens.valid.view(*seen.tokens.valid.shape, *[1] * (found.dim() - 2))
    raise UnsupportedModelError(
        "the model returns neither logits nor hidden states, so what it loses cannot be measured; "
        "choose worth='attention'"
    )


#: How worth is measured, by name.
WORTHS = {"attention": kept_attention, "output": kept_output}
