"""What `sparseattn quantize` does: a saved model with linear layers in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from sparseattn.exporting.comparing import (
    compared,
    lengths_for,
    outputs_of,
    random_batches,
)
from sparseattn.exporting.exportable import input_names
from sparseattn.exporting.int8 import Batches
from sparseattn.models.card import write_card
from sparseattn.models.encoder import encoder_of, owner_of
from sparseattn.models.int8 import Int8Linear, quantize
from sparseattn.models.load import quiet
from sparseattn.models.positions import max_tokens
from sparseattn.models.saving import new_folder, tokenizer_of, writing
from sparseattn.models.sparsify import plan_of

_MEGA = 1e6


def quantize_folder(model: Any, name: str, out: Path, texts: Batches | None) -> Iterator[str]:
    """Quantizes a sparse model and saves it with its tokenizer; yields what to tell the user.

    Args:
        model: A model that carries a plan.
        name: Where it came from.
        out: A new or empty folder; it is written whole or not at all.
        texts: What to compare the outputs on; random tokens by default.

    Raises:
        DataError: `out` cannot be written to or holds something.
        UnsupportedModelError: See `quantize`.
    """
    plan, owner = plan_of(model), owner_of(model)
    with new_folder(out) as draft, quiet():
        low = quantize(deepcopy(model))
        layers = [module for module in low.modules() if isinstance(module, Int8Linear)]
        whole = sum(parameter.numel() for parameter in model.parameters())
        lines = [
            f"{len(layers)} linear layers in int8: {sum(x.weight.numel() for x in layers):,} of "
            f"{whole:,} weights; {_megabytes(low)} in memory instead of {_megabytes(model)}"
        ]
        where = f"{len(texts)} texts" if texts else "random tokens"
        lengths = lengths_for(max_tokens(encoder_of(model).config))
        batches = texts or random_batches(model, input_names(owner), lengths)
        share = compared(model, outputs_of(low), batches)[1]
        lines.append(f"outputs on {where} differ by {share:.1%} of theirs (root mean squares)")
        with writing(out):
            low.save_pretrained(str(draft))
            if model is owner and (tokenizer := tokenizer_of(name)) is not None:
                tokenizer.save_pretrained(draft)
            if plan is not None:
                write_card(draft, plan, name, lines)
            size = sum(file.stat().st_size for file in draft.rglob("*") if file.is_file())
        yield from lines
    yield (
        f"wrote {out}: {size / _MEGA:.1f} MB, as large as before, so that any program can read it; "
        f"load it with sparseattn.load({str(out)!r})"
    )


def _megabytes(model: Any) -> str:
    tensors = [*model.parameters(), *model.buffers()]
    return f"{sum(x.numel() * x.element_size() for x in tensors) / _MEGA:.1f} MB"
