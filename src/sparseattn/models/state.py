"""What a sparsified model carries: the plan, and how each forward pass follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseattn.backend import Call
from sparseattn.errors import DataError, PlanError, PlanNotAppliedError
from sparseattn.models import masks
from sparseattn.models.config import SparsityConfig
from sparseattn.models.encoder import Attention, encoder_of
from sparseattn.models.interface import KEYWORD, NAME, Pass
from sparseattn.plan import CompiledPlan
from sparseattn.tokens import COLUMNS, TokenBatch

__all__ = [
    "ATTRIBUTE",
    "SparsityState",
    "attached_state",
    "checked",
    "embedding_of",
    "refuse_replica",
]

#: Where an encoder keeps it.
ATTRIBUTE = "_sparseattn_state"


@dataclass(eq=False)
class SparsityState:
    """What `sparsify` put on a model; lives on its encoder.

    Attributes:
        record: The plan and how to apply it.
        layers: The encoder's attention layers, in the order of their calls.
        names: Names of the encoder's positional parameters.
        before: The attention implementation to go back to.
        mask_route: Whether the plan reaches the layers through their masks.
        tables: The embeddings of learned positions, and the number of the first position.
        hooks: What to remove.
        pending: Annotation columns taken from an outer model's keywords.
        current: The last pass.
        running: Whether it still is.
        attached: Whether it is on the model.
        inner: A forward that something else had put on the encoder before.
        compiler: Makes the compiled plan of a batch in place of the plan itself; for plans that are
            being learned.
        observer: Told of each layer's attention before it is computed; for calibration.
    """

    record: SparsityConfig
    layers: list[Attention]
    names: list[str]
    before: str
    mask_route: bool
    tables: list[tuple[Any, int]] = field(default_factory=list)
    hooks: list[RemovableHandle] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)
    current: Pass | None = None
    running: bool = False
    attached: bool = False
    inner: Callable[..., Any] | None = None
    compiler: Callable[[TokenBatch], CompiledPlan] | None = None
    observer: Callable[[int, Call], None] | None = None

    @property
    def heads(self) -> list[int]:
        """Heads of each layer."""
        return [layer.heads for layer in self.layers]

    @property
    def windows(self) -> list[int | None]:
        """Radius that each layer never exceeds."""
        return [layer.window for layer in self.layers]

    def take_columns(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of the outer model: keeps the annotation columns for the encoder."""
        refuse_replica(module, args)
        self.pending = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        return args, kwargs

    def forward(self, encoder: Any, stock: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Runs the encoder's own forward with the plan compiled for its batch."""
        kwargs = self.before_forward(encoder, args, dict(kwargs))
        own = self.inner or partial(stock, encoder)
        self.running = True
        try:
            output = own(*args, **kwargs)
        finally:
            self.running = False
        self.after_forward(encoder)
        return output

    # Not to be traced by a compiler, see `interface.attention`.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before_forward(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Compiles the plan for a batch and adds it to the forward keywords."""
        if not self.mask_route and encoder.config._attn_implementation != NAME:
            raise PlanNotAppliedError(
                f"this model was sparsified, but its attn_implementation is now "
                f"{encoder.config._attn_implementation!r}; call sparsify() again, or restore()"
            )
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        columns = {**self.pending, **columns, **dict(zip(self.names, args, strict=False)), **kwargs}
        self.pending = {}
        tokens = self.record.tokens(checked(columns), embedding_of(encoder))
        if columns.get("position_ids") is None:
            self.check_length(encoder, tokens)
        made = self.compile(tokens)
        self.current = Pass(made, self.record.backend, observer=self.observer)
        if not self.mask_route:
            return {**kwargs, KEYWORD: self.current}
        if "attention_mask" in self.names[: len(args)]:
            return kwargs
        return {**kwargs, "attention_mask": masks.entering(self.layers[0].module, tokens.valid)}

    def check_length(self, encoder: nn.Module, tokens: TokenBatch) -> None:
        """Checks that a batch is no longer than the model's table of positions.

        PyTorch's own error names neither, and on a GPU it ends the process.

        Raises:
            DataError: It is longer.
        """
        for table, first in self.tables:
            limit, longest = table.weight.shape[0] - first, tokens.length
            if longest > limit and first:  # a table that keeps a row for padding
                longest = int(tokens.lengths.max())
            if longest > limit:
                raise DataError(
                    f"a text of {longest:,} tokens is more than the {limit:,} positions of "
                    f"{type(encoder).__name__}; cut it (truncation=True, max_length={limit}) or "
                    f"sparseattn.lengthen(model, tokenizer, to={longest}) before"
                )

    def compile(self, tokens: TokenBatch) -> CompiledPlan:
        """The compiled plan of a batch."""
        if self.compiler is not None:
            return self.compiler(tokens)
        return self.record.plan.compile(tokens, self.heads, self.windows)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def rewrite_mask(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Pre-hook of a self-attention that takes a mask."""
        hidden = args[0] if args else kwargs["hidden_states"]
        made = self._pass_of(module, args[1] if len(args) > 1 else kwargs.get("attention_mask"))
        index = made.layer(module)
        mask = masks.mask_for(module, made.compiled.layers[index], hidden)
        made.chosen[index] = masks.ONLY
        if len(args) > 1:
            return (hidden, mask, *args[2:]), kwargs
        return args, {**kwargs, "attention_mask": mask}

    def _pass_of(self, module: nn.Module, mask: Tensor | None) -> Pass:
        """The pass that a self-attention runs in, or ran in if it is now being recomputed.

        The mask is marked with it: activation checkpointing hands the same one in again, when other
        passes may have come since.
        """
        if self.running and self.current is not None:
            if mask is not None:
                setattr(mask, KEYWORD, self.current)
            return self.current
        marked: Pass | None = getattr(mask, KEYWORD, None)
        if marked is None:
            raise PlanNotAppliedError(
                f"no plan reached {type(module).__name__}; call sparsify() again, and checkpoint "
                "activations with use_reentrant=False"
            )
        return marked

    def after_forward(self, encoder: nn.Module) -> None:
        """Checks that every layer has followed the plan."""
        made = self.current
        if made is None or len(made.chosen) < len(self.layers):
            count = 0 if made is None else len(made.chosen)
            raise PlanNotAppliedError(
                f"only {count} of {len(self.layers)} attention layers of {type(encoder).__name__} "
                "followed the plan; call sparsify() again"
            )


def refuse_replica(module: nn.Module, _args: Any) -> None:
    """Pre-hook: a replica that `DataParallel` makes would run the forward of the original.

    Raises:
        PlanNotAppliedError: The module is one.
    """
    if getattr(module, "_is_replica", False):
        raise PlanNotAppliedError(
            f"torch.nn.DataParallel copies {type(module).__name__} in a way that no plan follows; "
            "use DistributedDataParallel (start with torchrun or accelerate launch), or one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )


def checked(columns: dict[str, Any]) -> dict[str, Any]:
    """Makes sure that a batch's padding mask has a row a text; adds one for bare embeddings.

    Raises:
        PlanError: The mask has other dimensions.
    """
    mask, embeds = columns.get("attention_mask"), columns.get("inputs_embeds")
    if mask is not None and mask.dim() != 2:
        raise PlanError(
            f"attention_mask must be [batch, length] on a sparsified model; got {list(mask.shape)}"
        )
    if mask is None and columns.get("input_ids") is None and embeds is not None:
        columns["attention_mask"] = torch.ones(embeds.shape[:2], device=embeds.device)
    return columns


def embedding_of(encoder: Any) -> Tensor | None:
    """The input embeddings, without gradient. Shape: [vocabulary, width]."""
    weight = getattr(encoder.get_input_embeddings(), "weight", None)
    return None if weight is None else weight.detach()


def attached_state(model: nn.Module) -> SparsityState | None:
    """What `sparsify` put on a model, or None."""
    return getattr(encoder_of(model), ATTRIBUTE, None)
