"""The attention function that transformers calls, and how a forward pass carries its plan.

One name is registered in both of transformers' registries. The mask function returns the padding
mask as it is (a name missing there would drop padding without a word). The compiled plan arrives as
a forward keyword, so that there is no global state: gradient checkpointing, several models and
threads and interleaved forward passes all see their own.

Models that plain `from_pretrained` loaded have no such keyword: no hook sees their batch. Their
plan comes out of their config, and only one that needs nothing but positions can be applied.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.auto import select
from sparseattn.backend import AUTO, Call, DistanceBias
from sparseattn.errors import PlanNotAppliedError, UnsupportedModelError
from sparseattn.models.config import FIELD, NAME, SparsityConfig
from sparseattn.models.layout import Layout
from sparseattn.plan import CompiledPlan
from sparseattn.rules import LayerRule
from sparseattn.tokens import TokenBatch

#: The forward keyword that carries a `Pass`.
KEYWORD = "sparseattn_pass"
#: Attribute of an attention module: the layers that it computes, in the order of its calls.
LAYERS = "_sparseattn_layers"

#: Keywords that change what an attention computes and that no backend knows.
_UNKNOWN = ("softcap", "s_aux", "head_mask")

#: The last pass of a plainly loaded model in this thread, its config, mask, shape and device: the
#: layers of one pass share its masks.
_LAST: ContextVar[tuple[Any, Tensor | None, Any, Pass] | None] = ContextVar("_LAST", default=None)


@dataclass(eq=False)
class Pass:
    """One forward pass of a sparsified model, with the plan compiled for its batch.

    Attributes:
        outer: The pass that this one runs inside; see `masks.RUNNING`.
        calls: How often each attention module that computes several layers has been called.
        chosen: The backend that computed each layer, and why.
        layout: Where the batch's tokens stand in the one row that the layers are handed; None where
            they are handed the batch.
        watched: The layers whose attention can be read afterwards, by `weights`.
        kept: Their calls; of families that compute their own attention what they returned.
    """

    compiled: CompiledPlan
    backend: str
    watched: Collection[int] = ()
    outer: Pass | None = None
    layout: Layout | None = None
    calls: Counter[int] = field(default_factory=Counter)
    chosen: dict[int, tuple[str, str]] = field(default_factory=dict)
    kept: dict[int, Call | Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def weights(
        self, layer: int, queries: Tensor | None = None, heads: Sequence[int] | None = None
    ) -> Tensor:
        """Attention of a watched layer, without dropout or gradient.

        Args:
            layer: The layer.
            queries: Indices; all by default. Shape: [queries], int64.
            heads: All by default.

        Returns:
            Shape: [batch, heads, queries, length], float32.
        """
        kept, rule = self.kept[layer], self.compiled.layers[layer]
        every = torch.arange(rule.length, device=rule.valid.device)
        rows = every if queries is None else queries
        chosen = slice(None) if heads is None else list(heads)
        if isinstance(kept, Tensor):
            return kept[:, chosen][:, :, rows].float()
        query, key = kept.query[:, chosen][:, :, rows], kept.key[:, chosen]
        scores = (query @ key.transpose(-2, -1) * kept.scale).float()
        if (bias := kept.dense_bias) is not None:
            scores += bias.expand(-1, rule.heads, rule.length, -1)[:, chosen][:, :, rows]
        mask = rule.allowed(rows, every, heads) | ~rule.valid[:, None, rows, None]
        return scores.masked_fill_(~mask, float("-inf")).softmax(dim=-1)

    def layer(self, module: nn.Module) -> int:
        """The layer that this call of an attention module computes."""
        layers: tuple[int, ...] | None = getattr(module, LAYERS, None)
        if layers is None:
            raise PlanNotAppliedError(
                f"{type(module).__name__} was not there when the model was sparsified; "
                "call sparsify() again"
            )
        if len(layers) == 1:  # called once more when gradient checkpointing recomputes it
            return layers[0]
        call = self.calls[id(module)]
        self.calls[id(module)] += 1
        if call >= len(layers):
            raise PlanNotAppliedError(
                f"{type(module).__name__} computes {len(layers)} layers and was called more often "
                "in one forward pass, so its plan cannot be followed"
            )
        return layers[call]


def register(name: str = NAME, function: Any = None) -> None:
    """Makes a name known to transformers; doing it again changes nothing.

    Args:
        name: The attention implementation.
        function: What computes it; `attention` by default.
    """
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(name, function or attention)
    AttentionMaskInterface.register(name, padding_mask)


def padding_mask(attention_mask: Tensor | None = None, **_: Any) -> Tensor | None:
    """The padding mask as the model got it. Shape: [batch, length], bool."""
    return attention_mask


# --- hooks of a packed encoder's layers: real tokens in, the padded batch out


def _layout(kwargs: dict[str, Any]) -> Layout | None:
    current: Pass | None = kwargs.get(KEYWORD)
    return None if current is None else current.layout


def pack_inputs(_layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Pre-hook: packs hidden states, and what goes with each token, such as rotations."""
    if (layout := _layout(kwargs)) is None:
        return None
    return layout.pack_all(args), {name: layout.pack_all(value) for name, value in kwargs.items()}


def unpack_outputs(_layer: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Hook: lays hidden states out by text again."""
    if (layout := _layout(kwargs)) is None:
        return None
    return layout.unpack_all(output)


# --- the attention


# A compiled model's graph ends here and goes on after: what a plan comes to differs from batch to
# batch, and a graph that holds it would be made anew each time.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | DistanceBias | None = None,
    sliding_window: int | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """Attends under a plan; the signature is that of transformers' attention functions.

    Args:
        module: The attention module that calls.
        query: Shape: [batch, heads, length, head width].
        key: As `query`, perhaps with fewer heads.
        value: As `key`.
        attention_mask: The padding mask; a plan that `sparsify` compiled knows it already.
        scaling: Factor of the scores; `head width ** -0.5` by default.
        dropout: Chance that an attention weight is dropped.
        position_bias: Added to the scaled scores. Shape: [1 or batch, heads, length, length], or a
            number a distance.
        sliding_window: One more than the radius that a local layer never exceeds; the compiled
            plan of `sparsify` knows it, too.
        **keywords: The rest of the forward keywords, the plan among them.

    Returns:
        The context and no attention weights. Shape: [batch, length, heads, head width].

    Raises:
        PlanNotAppliedError: The pass carries no plan.
        BackendError: The backend asked for cannot compute this.
    """
    current: Pass | None = keywords.get(KEYWORD)
    if current is not None:
        index = current.layer(module)
        rule = current.compiled.layers[index]
    else:
        current, index = _pass_of_config(module, query, attention_mask)
        rule = current.compiled.layers[index]
        if sliding_window is not None:
            rule = rule.within(sliding_window - 1)
    layout, scale = current.layout, query.shape[-1] ** -0.5 if scaling is None else scaling
    _check(module, key, rule.length if layout is None else len(layout.index), keywords)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # every query head gets its own copy of a shared key or value head
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    bias = current.compiled.bias(index)
    if layout is not None:
        if bias is None is position_bias and _dense_text_by_text(current, index, rule):
            context = layout.attend_within_texts(query, key, value, scale, dropout)
            return context.transpose(1, 2).contiguous(), None
        query, key, value = map(layout.unpack_heads, (query, key, value))
    call = Call(query, key, value, rule, scale, dropout, _sum(bias, position_bias))
    if index in current.watched:
        current.kept[index] = replace(call, value=call.key)  # values are not asked for
    chosen, reason = select(current.backend, call)
    current.chosen[index] = (chosen.name, reason)
    context = chosen.attend(call).transpose(1, 2)
    return (context.contiguous() if layout is None else layout.pack(context)), None


def _dense_text_by_text(current: Pass, index: int, rule: LayerRule) -> bool:
    """Whether a packed layer is dense, so that each text can be attended to by itself."""
    if not rule.is_full or index in current.watched or current.backend not in (AUTO, "masked"):
        return False
    current.chosen[index] = ("masked", "dense, each text of a packed batch by itself")
    return True


def _sum(soft: Tensor | None, positions: Tensor | DistanceBias | None) -> Any:
    """What a soft mask and relative positions add to the scores together."""
    if soft is None or positions is None:
        return positions if soft is None else soft
    return soft + (positions.dense() if isinstance(positions, DistanceBias) else positions)


def _check(module: nn.Module, key: Tensor, tokens: int, keywords: dict[str, Any]) -> None:
    for name in _UNKNOWN:
        if keywords.get(name) is not None:
            raise UnsupportedModelError(
                f"{type(module).__name__} passes {name}, which sparse attention does not compute"
            )
    if key.shape[2] != tokens:
        raise UnsupportedModelError(
            f"{type(module).__name__} attends to {key.shape[2]} keys in a batch of {tokens} "
            "tokens; cached keys, prefix tuning and cross-attention are not supported"
        )


def _pass_of_config(module: nn.Module, query: Tensor, mask: Tensor | None) -> tuple[Pass, int]:
    """The pass of a plainly loaded model, and the layer that a module of it computes."""
    if hasattr(module, LAYERS):
        raise PlanNotAppliedError(
            f"the plan did not reach {type(module).__name__}: the hooks of sparsify() are gone; "
            "call sparsify() again"
        )
    config, index = getattr(module, "config", None), getattr(module, "layer_idx", None)
    data = getattr(config, FIELD, None)
    if config is None or data is None:
        raise PlanNotAppliedError(
            "attn_implementation='sparseattn' needs a plan and this model's config has none; "
            "call sparsify(), or load a saved model with sparseattn.load()"
        )
    if not isinstance(index, int):
        raise PlanNotAppliedError(
            f"{type(module).__name__} does not know which layer it is; load this model with "
            "sparseattn.load()"
        )
    key = (query.shape[:3], query.device)
    last = _LAST.get()
    # A layer that comes again begins another pass: its mask may have been changed in place.
    if (
        last is None
        or (last[0] is not config or last[1] is not mask or last[2] != key)
        or index in last[3].chosen
    ):
        sparsity = _parsed(json.dumps(data))
        if needs := sparsity.plan.needs:
            raise PlanNotAppliedError(
                f"this model's plan needs {', '.join(sorted(needs))}, which from_pretrained() "
                "alone cannot supply; load it with sparseattn.load()"
            )
        batch, heads, length = key[0]
        valid = query.new_ones(batch, length, dtype=torch.bool) if mask is None else mask.bool()
        compiled = sparsity.plan.compile(TokenBatch(valid), [heads] * config.num_hidden_layers)
        config.attn_implementation = NAME  # saved again, the config still asks for it
        last = (config, mask, key, Pass(compiled, sparsity.backend))
        _LAST.set(last)
    return last[3], index


@lru_cache(maxsize=16)
def _parsed(text: str) -> SparsityConfig:
    return SparsityConfig.from_json(json.loads(text))
