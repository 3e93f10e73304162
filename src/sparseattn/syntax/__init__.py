"""Words, sentences, syntactic heads and parts of speech for the tokens of a batch."""

from __future__ import annotations

from sparseattn.syntax.annotate import Annotator
from sparseattn.syntax.collate import Collator

__all__ = ["Annotator", "Collator"]
