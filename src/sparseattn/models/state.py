"""What a sparsified model carries: the plan, and how each forward pass follows it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseattn.annotations import COLUMNS
from sparseattn.errors import DataError, PlanError, PlanNotAppliedError, UnsupportedModelError
from sparseattn.models import masks, own_attention
from sparseattn.models.config import ATTRIBUTE, FIELD, NAME, SparsityConfig
from sparseattn.models.encoder import (
    Attention,
    attention_layers,
    default_implementation,
    encoder_of,
)
from sparseattn.models.interface import KEYWORD, Pass
from sparseattn.models.layout import Layout
from sparseattn.models.positions import position_tables
from sparseattn.plan import CompiledPlan
from sparseattn.tokens import TokenBatch

#: Annotation columns that a model around an encoder was called with in this thread: the encoder's
#: state, that model, and the columns.
_COLUMNS: ContextVar[tuple[Any, Any, dict[str, Any]]] = ContextVar(
    "_COLUMNS", default=(None, None, {})
)

_TOKENIZE = "tokenize texts first: tokenizer(texts, padding=True, return_tensors='pt')"


@dataclass(eq=False)
class SparsityState:
    """What `sparsify` put on a model; lives on its encoder.

    Attributes:
        layers: The encoder's attention layers, in the order of their calls.
        own: Whether the layers compute their own attention; see `own_attention` and `masks`.
        mask_only: Whether the plan reaches them through their masks.
        names: Names of the encoder's positional parameters.
        tables: The embeddings of learned positions, and the number of the first position.
        before: The attention implementation to go back to.
        inner: A forward that something else had put on the encoder before.
        hooks: What to remove.
        owners: The models around the encoder that were handed to `sparsify`.
        last: The last pass, for `describe`; in several threads that of any.
        compiler: Makes the compiled plan of a batch in place of the plan itself; for plans that are
            being learned.
        packs: Whether the layers get the real tokens in one row; see `packing`.
        watched: The layers whose attention each pass keeps; see `Pass.weights`.
    """

    config: SparsityConfig
    encoder: Any
    layers: list[Attention]
    own: bool
    mask_only: bool
    names: list[str]
    tables: list[tuple[Any, int]]
    before: str
    inner: Callable[..., Any] | None = None
    hooks: list[RemovableHandle] = field(default_factory=list)
    owners: list[nn.Module] = field(default_factory=list)
    last: Pass | None = None
    compiler: Callable[[TokenBatch], CompiledPlan] | None = None
    packs: bool = False
    watched: Collection[int] = ()

    @classmethod
    def of(cls, encoder: Any, config: SparsityConfig) -> SparsityState:
        """Looks at an encoder, and changes nothing."""
        layers = attention_layers(encoder)
        before = encoder.config._attn_implementation
        return cls(
            config,
            encoder,
            layers,
            own=bool(own_attention.modules_of(encoder) or masks.modules_of(encoder)),
            mask_only=bool(masks.modules_of(encoder)),
            names=list(inspect.signature(encoder.forward).parameters),
            tables=[(encoder.get_submodule(n), at) for n, at in position_tables(encoder).items()],
            before=default_implementation(encoder) if before == NAME else before,
        )

    @property
    def heads(self) -> list[int]:
        """Heads of each layer."""
        return [layer.heads for layer in self.layers]

    @property
    def windows(self) -> list[int | None]:
        """Radius that each layer never exceeds."""
        return [layer.window for layer in self.layers]

    def tokens(self, columns: dict[str, Any]) -> TokenBatch:
        """What the plan may know of a batch, which is as the model takes it."""
        columns = _checked(columns)
        needs = self.config.plan.needs
        known: dict[str, Tensor | None] = {}
        if "embedding" in needs:
            weight = getattr(self.encoder.get_input_embeddings(), "weight", None)
            known["embedding"] = None if weight is None else weight.detach()
        for name in {"special", "separators"} & needs:
            ids, members = columns.get("input_ids"), getattr(self.config, name)
            if ids is not None and members is not None:
                known[name] = torch.isin(ids, ids.new_tensor(members))
        tokens = TokenBatch.of_columns(columns, **known)
        if columns.get("position_ids") is None:
            self._check_length(tokens)
        return tokens

    def _check_length(self, tokens: TokenBatch) -> None:
        """PyTorch's own error names no length, and on a GPU it ends the process."""
        for table, first in self.tables:
            limit, longest = table.weight.shape[0] - first, tokens.length
            if longest > limit and first:  # a table that keeps a row for padding
                longest = int(tokens.lengths.max())
            if longest > limit:
                raise DataError(
                    f"a text of {longest:,} tokens is more than the {limit:,} positions of "
                    f"{type(self.encoder).__name__}; cut it (truncation=True, max_length={limit}) "
                    f"or sparseattn.lengthen(model, tokenizer, to={longest}) before"
                )

    def compile(self, tokens: TokenBatch) -> CompiledPlan:
        """The compiled plan of a batch."""
        if self.compiler is not None:
            return self.compiler(tokens)
        return self.config.plan.compile(tokens, self.heads, self.windows)

    def before_owner(
        self, owner: nn.Module, args: Any, kwargs: dict[str, Any], *, path: tuple[str, ...]
    ) -> Any:
        """Pre-hook of a model around the encoder: keeps the annotation columns for the encoder."""
        refuse_replica(owner, args)
        here: Any = owner
        for name in path:
            here = getattr(here, name, None)
        if here is not self.encoder and all(m is not self.encoder for m in owner.modules()):
            raise PlanNotAppliedError(
                f"the encoder of {type(owner).__name__} was replaced after sparsify(); "
                "call sparsify() again"
            )
        columns = {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        if columns or not torch.compiler.is_compiling():
            _keep_columns(self, owner, columns)
        return args, kwargs

    def forward(self, stock: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the encoder's own forward with the plan compiled for its batch."""
        args, kwargs, current = self.before_forward(args, dict(kwargs))
        own = self.inner or partial(stock, self.encoder)
        try:
            output = own(*args, **kwargs)
        finally:
            if self.own:
                _leave(current)
        if self.mask_only and current.watched:
            masks.keep_weights(current, output)
        self.after_forward(current)
        return output

    # Not to be traced by a compiler, see `interface.attention`.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before_forward(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], Pass]:
        """Compiles the plan for a batch, and hands its pass to the layers."""
        encoder = self.encoder
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore
            raise UnsupportedModelError(
                "a sparse model cannot be traced, as its plan is compiled for each batch; call "
                "sparseattn.export(model, PATH), or trace "
                "sparseattn.exporting.exportable.Exportable(model)"
            )
        if not self.own and encoder.config._attn_implementation != NAME:
            raise PlanNotAppliedError(
                f"this model was sparsified, but its attn_implementation is now "
                f"{encoder.config._attn_implementation!r}; call sparsify() again, or restore()"
            )
        state, _, columns = _COLUMNS.get()
        if columns:
            _COLUMNS.set((None, None, {}))
        columns = dict(columns) if state is self else {}
        columns |= {name: kwargs.pop(name) for name in COLUMNS if name in kwargs}
        columns |= dict(zip(self.names, args, strict=False)) | kwargs
        tokens = self.tokens(columns)
        current = Pass(self.compile(tokens), self.config.backend, self.watched)
        if self.packs and not self._gives_hidden_states(columns):
            current.layout = Layout.of(tokens.valid)
        if not self.own:
            return args, {**kwargs, KEYWORD: current}, current
        current.outer = masks.RUNNING.get()
        masks.RUNNING.set(current)
        if self.mask_only and current.watched:
            kwargs = {**kwargs, "output_attentions": True}
        # Given a mask of two dimensions and no padding, most families hand their layers None; one
        # of four dimensions they hand on as it is.
        mask = tokens.valid.long() if self.mask_only else tokens.valid[:, None, None, :]
        at = self.names.index("attention_mask")
        if at < len(args):
            return (*args[:at], mask, *args[at + 1 :]), kwargs, current
        return args, {**kwargs, "attention_mask": mask}, current

    def _gives_hidden_states(self, columns: dict[str, Any]) -> bool:
        """Whether transformers keeps what goes on between the layers, which must not be packed."""
        name = "output_hidden_states"
        asked = columns.get(name)
        return bool(getattr(self.encoder.config, name, False) if asked is None else asked)

    def after_forward(self, current: Pass) -> None:
        """Checks that every layer has followed the plan, in its place."""
        self.last = current
        count = len(self.layers)
        if list(current.chosen) != list(range(count)):
            followed = ", ".join(map(str, current.chosen)) or "none"
            raise PlanNotAppliedError(
                f"the plan of {type(self.encoder).__name__} was followed not by its attention "
                f"layers 0 to {count - 1}, but by {followed}; call sparsify() again"
            )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _keep_columns(state: SparsityState, owner: nn.Module, columns: dict[str, Any]) -> None:
    whose, outer, before = _COLUMNS.get()
    if whose is state and outer is not owner:  # `outer` calls this model
        columns = before | columns
    if columns or before:
        _COLUMNS.set((state, owner, columns))


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _leave(current: Pass) -> None:
    masks.RUNNING.set(current.outer)


def refuse_replica(module: nn.Module, _args: Any) -> None:
    """Pre-hook: a replica that `DataParallel` makes would run the forward of the original."""
    if getattr(module, "_is_replica", False):
        raise PlanNotAppliedError(
            f"torch.nn.DataParallel copies {type(module).__name__} in a way that no plan follows; "
            "use DistributedDataParallel (start with torchrun or accelerate launch), or one GPU "
            "(CUDA_VISIBLE_DEVICES=0)"
        )


def _checked(columns: dict[str, Any]) -> dict[str, Any]:
    """Refuses what is no batch of tokens; adds a padding mask for bare embeddings."""
    for name in ("input_ids", "attention_mask", "inputs_embeds"):
        value = columns.get(name)
        if value is not None and not isinstance(value, Tensor):
            raise DataError(f"{name} must be a tensor; got a {type(value).__name__}: {_TOKENIZE}")
    ids, mask, embeds = map(columns.get, ("input_ids", "attention_mask", "inputs_embeds"))
    if ids is not None and ids.dim() != 2:
        raise DataError(f"input_ids must be [batch, length]; got {list(ids.shape)}: {_TOKENIZE}")
    if any(value is not None and not value.numel() for value in (ids, embeds)):
        raise DataError(
            "a batch without tokens: give texts, and their special tokens to empty ones"
        )
    if mask is not None and mask.dim() != 2:
        raise PlanError(
            f"attention_mask must be [batch, length] on a sparsified model; got {list(mask.shape)}"
        )
    if mask is None and ids is None and embeds is not None:
        return {**columns, "attention_mask": torch.ones(embeds.shape[:2], device=embeds.device)}
    return columns


def attached_state(model: nn.Module) -> SparsityState | None:
    """What `sparsify` put on a model, or None."""
    return getattr(encoder_of(model), ATTRIBUTE, None)


def followed(encoder: Any) -> SparsityConfig | None:
    """What an encoder follows: `sparsify` or plain `from_pretrained` made it so. None if dense."""
    state: SparsityState | None = getattr(encoder, ATTRIBUTE, None)
    if state is not None:
        return state.config
    data = getattr(encoder.config, FIELD, None)
    if data is None or encoder.config._attn_implementation != NAME:
        return None
    return SparsityConfig.from_json(data)
