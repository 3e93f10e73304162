"""Linear layers in 8-bit integers, and putting them into a model."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from sparseattn.errors import UnsupportedModelError
from sparseattn.models.config import FIELD, QUANTIZED
from sparseattn.models.encoder import encoder_of, owner_of

#: Tokens that are computed at a time, so that what is between stays in the cache.
_ROWS = 256
#: What stands for 0 in unsigned numbers, which is what oneDNN multiplies fast.
_ZERO = 128
#: Scales keep so many bits of the 24: then all of their products with weights are exact.
_BITS = 16


class Int8Linear(nn.Module):
    """A linear layer whose weights and inputs are 8-bit integers, for inference on CPUs.

    Each output has a scale of its own in the weights, and each token in the inputs, found when it
    is computed: so no token's output depends on other tokens or texts of its batch. Its state dict
    holds the weights in floating point; quantizing those gives the same integers and scales.

    Args:
        linear: What to replace.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = _quantized(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self._packed: Tensor | None = None
        self.train(linear.training)

    def forward(self, states: Tensor) -> Tensor:
        """Computes the outputs of each token. Shape: [..., in], to [..., out]."""
        if self.training or (states.requires_grad and torch.is_grad_enabled()):
            raise UnsupportedModelError(
                "an int8 model cannot be trained: call model.eval(), or train before quantize()"
            )
        if states.device.type != "cpu":
            raise UnsupportedModelError(
                f"int8 linear layers run on CPUs, not on {states.device.type}: model.to('cpu')"
            )
        rows = states.reshape(-1, self.in_features)
        out = rows.new_empty(len(rows), self.out_features)
        for start in range(0, len(rows), _ROWS):
            here = slice(start, start + _ROWS)
            self._compute(rows[here].float(), out[here])
        return out.view(*states.shape[:-1], self.out_features)

    def _compute(self, rows: Tensor, out: Tensor) -> None:
        largest = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))
        largest.clamp_(min=1e-30)
        # Half more, because a conversion to integers cuts off.
        integers = (rows * (127 / largest)).add_(_ZERO + 0.5).to(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            integers, 1.0, _ZERO, self._weights(), self.scale, torch.zeros_like(self.scale).int(),
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        products.mul_(largest.div_(127))
        torch.add(products, 0 if self.bias is None else self.bias.detach(), out=out)

    def _weights(self) -> Tensor:
        """The weights as the processor takes them."""
        if self._packed is None:
            self._packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
        return self._packed

    def dequantized(self) -> Tensor:
        """The weights in floating point. Shape: [out, in]."""
        return self.weight * self.scale[:, None]

    def extra_repr(self) -> str:
        """As `torch.nn.Linear`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        scale = self.scale  # stays in single precision
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scale = scale
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        del destination[f"{prefix}scale"]
        destination[f"{prefix}weight"] = self.dequantized()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        name = f"{prefix}weight"
        if name in state_dict:
            weight, scale = _quantized(state_dict[name])
            state_dict = {**state_dict, name: weight, f"{prefix}scale": scale}
            self._packed = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def cuts_sums() -> bool:
    """Whether this processor adds up two 8-bit products in 16 bits, and cuts off what is beyond.

    Those of x86 without VNNI do; ARM's, of which PyTorch says that they lack VNNI, do not.
    """
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return on_x86 and not torch.cpu._is_vnni_supported()


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers, and the scale of each row, rounded up. Shapes: [out, in], int8, and [out]."""
    weight = weight.float()
    # Of inputs up to 255, 16 bits hold two products with weights up to 64.
    largest = 64 if cuts_sums() else 127
    fraction, exponent = torch.frexp(weight.abs().amax(dim=1) / largest)
    scale = torch.ldexp((fraction * 2**_BITS).ceil(), exponent - _BITS)
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def is_quantized(model: Any) -> bool:
    """Whether `quantize` made a model's linear layers 8-bit integers."""
    return any(isinstance(module, Int8Linear) for module in encoder_of(model).modules())


def quantize(model: Any) -> Any:
    """Turns the linear layers of a model's encoder into 8-bit integers, in place.

    Embeddings, normalisation, attention itself, poolers and heads stay as they are. The model can
    then be run on CPUs, but not trained.

    Args:
        model: A model in evaluation mode, as `sparsify` takes it.

    Returns:
        The model.

    Raises:
        UnsupportedModelError: It is quantized already, in training, on another device, under an
            adapter, or PyTorch lacks the operators on this processor.
    """
    encoder = encoder_of(model)
    found = [name for name, module in encoder.named_modules() if _fits(name, module)]
    _check(model, encoder, found)
    for name in found:
        parent, _, child = name.rpartition(".")
        setattr(encoder.get_submodule(parent), child, Int8Linear(encoder.get_submodule(name)))
    model.requires_grad_(False)
    for config in (encoder.config, owner_of(model).config):
        if FIELD in vars(config):
            setattr(config, FIELD, {**getattr(config, FIELD), QUANTIZED: "int8"})
    return model


def _fits(name: str, module: nn.Module) -> bool:
    # A pooler sees one token, where single precision costs nothing.
    return type(module) is nn.Linear and "pooler" not in name.split(".")


def _check(model: Any, encoder: Any, found: list[str]) -> None:
    who = f"{type(model).__name__} cannot be quantized"
    if is_quantized(model):
        raise UnsupportedModelError(f"{who}: it is already")
    if encoder.training:
        raise UnsupportedModelError(
            f"{who}: it is being trained, and int8 is for inference; call model.eval() before"
        )
    if any(hasattr(module, "base_layer") for module in encoder.modules()):
        raise UnsupportedModelError(f"{who}: merge its adapter before (model.merge_and_unload())")
    if not found:
        raise UnsupportedModelError(f"{who}: its encoder has no torch.nn.Linear")
    device = next(encoder.parameters()).device.type
    if device != "cpu":
        raise UnsupportedModelError(
            f"{who}: int8 linear layers run on CPUs, and it is on {device}; model.to('cpu') before"
        )
    if "onednn" not in torch.backends.quantized.supported_engines:
        raise UnsupportedModelError(
            f"{who}: PyTorch {torch.__version__} has no int8 operators (oneDNN) for this processor"
        )
