"""Families that compute their own attention and do not ask transformers' AttentionInterface for it.

Their self-attention modules get another `forward`, which computes queries, keys and values as the
module's own does and hands them to `interface.attention`. Relative positions become a number for
each distance, so that nothing of length x length is built. What is put in the place of a method is
compared with it first: a change in transformers is an error then, not another result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.backend import DistanceBias
from sparseattn.errors import UnsupportedModelError, first_line
from sparseattn.models.interface import KEYWORD, attention
from sparseattn.models.masks import class_name, no_plan, pass_of

#: Computes an attention: module, states, mask, position bias.
Attend = Callable[[Any, list[Tensor], Any, Any], Tensor]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def under_plan(module: Any, states: list[Tensor], mask: Any, bias: Any) -> Tensor:
    """The context of a pass. Shape: [batch, length, heads x head width]."""
    dropout = module.dropout.p if module.training else 0.0
    keywords: dict[str, Any] = {"dropout": dropout, "position_bias": bias}
    keywords[KEYWORD] = pass_of(module, mask)
    context: Tensor = attention(module, *states, None, **keywords)[0]
    return context.flatten(2)


def _dense(module: Any, states: list[Tensor], _mask: Any, _bias: Any) -> Tensor:
    query, key, value = states
    weights: Tensor = (query @ key.mT * module.attention_head_size**-0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


# --- what each family's self-attention does but for the attention itself


def _states(module: Any, hidden: Tensor, names: str) -> list[Tensor]:
    """Queries, keys and values. Shape of each: [batch, heads, length, head width]."""
    shape = (*hidden.shape[:-1], -1, module.attention_head_size)
    return [getattr(module, name)(hidden).view(shape).transpose(1, 2) for name in names.split()]


def _bert(attend: Attend, module: Any, hidden: Tensor, mask: Any = None, **_: Any) -> Any:
    return attend(module, _states(module, hidden, "query key value"), mask, None), None


def _roformer(
    attend: Attend, module: Any, hidden: Tensor, mask: Any = None, positions: Any = None, **_: Any
) -> Any:
    states = _states(module, hidden, "query key value")
    if positions is not None:
        count = 3 if module.rotary_value else 2
        turned = module.apply_rotary_position_embeddings(positions, *states[:count])
        states[:count] = turned
    return attend(module, states, mask, None), None


def _mpnet(
    attend: Attend, module: Any, hidden: Tensor, mask: Any = None, bias: Any = None, **_: Any
) -> Any:
    return (module.o(attend(module, _states(module, hidden, "q k v"), mask, bias)),)


_MODELS = "transformers.models."
_FORWARDS: dict[str, Callable[..., Any]] = {
    f"{_MODELS}mpnet.modeling_mpnet.MPNetSelfAttention": _mpnet,
    f"{_MODELS}roformer.modeling_roformer.RoFormerSelfAttention": _roformer,
    f"{_MODELS}rembert.modeling_rembert.RemBertSelfAttention": _bert,
    f"{_MODELS}megatron_bert.modeling_megatron_bert.MegatronBertSelfAttention": _bert,
}


@cache
def _forward(compute: Callable[..., Any], attend: Attend = under_plan) -> Callable[..., Any]:
    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        named = {name: kwargs.pop(old) for old, name in _NAMES.items() if old in kwargs}
        return compute(attend, self, hidden_states, attention_mask, *args[:1], **named)

    return forward


#: What the third argument of a `forward` is called there and here.
_NAMES = {"position_bias": "bias", "sinusoidal_pos": "positions"}


# --- relative positions


def compute_position_bias(self: Any, x: Tensor, *_: Any, **__: Any) -> DistanceBias:
    """Instead of `MPNetEncoder.compute_position_bias`."""
    away = torch.arange(1 - x.size(1), x.size(1), device=x.device)
    return DistanceBias(self.relative_attention_bias(self.relative_position_bucket(away)).T)


def compute_bias(
    self: Any, query_length: int, key_length: int, device: Any = None, **_: Any
) -> DistanceBias:
    """Instead of `T5Attention.compute_bias`."""
    stock = type(self).compute_bias
    behind = stock(self, query_length, 1, device)[0, :, 1:, 0].flip(1)
    return DistanceBias(torch.cat([behind, stock(self, 1, key_length, device)[0, :, 0]], dim=1))


_BIASES: dict[str, Callable[..., DistanceBias]] = {
    f"{_MODELS}mpnet.modeling_mpnet.MPNetEncoder": compute_position_bias,
    f"{_MODELS}t5.modeling_t5.T5Attention": compute_bias,
    f"{_MODELS}mt5.modeling_mt5.MT5Attention": compute_bias,
    f"{_MODELS}umt5.modeling_umt5.UMT5Attention": compute_bias,
    f"{_MODELS}switch_transformers.modeling_switch_transformers.SwitchTransformersAttention": (
        compute_bias
    ),
}
#: Tokens from which on MPNet's no longer change; others say it themselves.
_FARTHEST = 128


def _of_length(function: Callable[..., Any], module: Any, length: int) -> tuple[Any, ...]:
    """What the function of relative positions is called with for a text of so many tokens."""
    if function is compute_bias:
        return length, length
    return (module.relative_attention_bias.weight.new_empty(1, length, 1),)


def fix_biases(encoder: nn.Module) -> None:
    """Has relative positions read off numbers that are computed now, for texts of any length.

    They reach as far as numbers change with the distance; what is farther gets the last.
    """
    for module, function in _replacements(encoder):
        if function in _BIASES.values():
            farthest = getattr(module, "relative_attention_max_distance", _FARTHEST)
            values = function(module, *_of_length(function, module, farthest + 1)).values
            module.register_buffer(_FIXED, values.detach())
            setattr(module, function.__name__, MethodType(_fixed, module))


_FIXED = "_sparseattn_bias"


def _fixed(self: Any, *_: Any, **__: Any) -> DistanceBias:
    return DistanceBias(getattr(self, _FIXED))


# --- on a model


def modules_of(encoder: nn.Module) -> list[Any]:
    """The self-attention modules of such a family, in the order of the layers; maybe none."""
    return [module for module in encoder.modules() if class_name(module) in _FORWARDS]


def _replacements(encoder: nn.Module) -> Iterator[tuple[Any, Callable[..., Any]]]:
    for module in encoder.modules():
        name = class_name(module)
        if name in _FORWARDS:
            yield module, _forward(_FORWARDS[name])
        if name in _BIASES and hasattr(module, "relative_attention_bias"):
            yield module, _BIASES[name]


def replace(encoder: nn.Module) -> None:
    """Puts the methods of this file on an encoder.

    Raises:
        UnsupportedModelError: One computes something else than the method that it would replace.
    """
    _check(encoder)
    for module, function in _replacements(encoder):
        setattr(module, function.__name__, MethodType(function, module))


def attend_by(encoder: nn.Module, attend: Attend) -> None:
    """Has the self-attention modules of such a family compute attention by another function."""
    for module in modules_of(encoder):
        module.forward = MethodType(_forward(_FORWARDS[class_name(module)], attend), module)


def is_replaced(encoder: nn.Module) -> bool:
    """Whether an encoder has all of them."""
    return all(
        getattr(vars(module).get(function.__name__), "__func__", None) is function
        for module, function in _replacements(encoder)
    )


def refuse_outside(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Pre-hook of a self-attention: pickling loses its `forward`, and with it the plan."""
    if getattr(module.forward, "__func__", None) is type(module).forward:
        raise no_plan(module)
    pass_of(module, args[1] if len(args) > 1 else kwargs.get("attention_mask"))


def put_back(encoder: nn.Module) -> None:
    """Takes them off again."""
    for module, function in _replacements(encoder):
        vars(module).pop(function.__name__, None)


@torch.no_grad()
def _check(encoder: nn.Module) -> None:
    for module, function in _replacements(encoder):
        why = ""
        try:
            same = _same(module, function)
        except Exception as error:
            same, why = False, f": {first_line(error)}"
        if not same:
            import transformers

            raise UnsupportedModelError(
                f"{type(module).__name__}.{function.__name__} of transformers "
                f"{transformers.__version__} computes something else than this version of "
                f"sparseattn expects{why}; install another version of one of them"
            )


def _same(module: Any, function: Callable[..., Any]) -> bool:
    """Whether a method and its replacement agree on three tokens."""
    stock, weight = getattr(type(module), function.__name__), next(module.parameters())
    if weight.is_meta:
        return True
    if function in _BIASES.values():
        arguments = _of_length(function, module, 3)
        expected, got = stock(module, *arguments), function(module, *arguments).dense()
    else:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(1, 3, weight.shape[1], generator=generator).to(weight)
        compute, training = _FORWARDS[class_name(module)], module.training
        module.eval()
        try:
            extra = []
            if compute is _roformer:
                angles = torch.randn(1, 1, 3, module.attention_head_size, generator=generator)
                extra = [angles.to(weight)]
            expected = stock(module, hidden, None, *extra)[0]
            got = compute(_dense, module, hidden, None, *extra)[0]
        finally:
            module.train(training)
    tolerance = 1e-4 if weight.dtype in (torch.float32, torch.float64) else 0.02
    apart = (expected.double() - got.double()).abs().max()
    return bool(apart <= tolerance * expected.double().abs().max())
