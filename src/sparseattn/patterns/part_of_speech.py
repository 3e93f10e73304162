"""Words of some parts of speech, such as content words, as the only keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sparseattn.annotations import TAGS
from sparseattn.errors import PatternError, unknown
from sparseattn.pattern import Pattern
from sparseattn.patterns._checks import distinct_names, listed, refused
from sparseattn.rules import Product, Rule
from sparseattn.tokens import TokenBatch


@dataclass(frozen=True)
class PartOfSpeech(Pattern):
    """Tokens whose word has one of the parts of speech in `keep`, as keys of every query.

    It masks keys, not queries: what a word of another kind says is hidden, while its own token
    still reads the words that are kept. Every subword has the part of speech of its word. Special
    tokens are no words and no keys, but they ask like any other (join `global(cls, sep)` to let
    them be found).

    Args:
        keep: Universal part-of-speech tags (arXiv 2004.10643): adj, adp, adv, aux, cconj, det,
            intj, noun, num, part, pron, propn, punct, sconj, sym, verb, x. Content words are
            `[noun, verb, adj, adv, propn]`.

    >>> import torch
    >>> from sparseattn import TokenBatch, parse
    >>> from sparseattn.annotations import TAGS
    >>> real = torch.ones(1, 4, dtype=torch.bool)
    >>> tags = torch.tensor([[-1, TAGS.index("det"), TAGS.index("noun"), TAGS.index("verb")]])
    >>> tokens = TokenBatch(real, tags=tags)  # [CLS] the dog barked
    >>> print(parse("part_of_speech(keep=[noun, verb])").rule(tokens).dense(4).int()[0, 0])
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1],
            [0, 0, 1, 1],
            [0, 0, 1, 1]], dtype=torch.int32)
    """

    keep: tuple[str, ...]

    name: ClassVar[str] = "part_of_speech"
    formula: ClassVar[str] = "tag(word(k)) in keep"
    degrees: ClassVar[str] = "tokens of such words, and the query itself"
    source: ClassVar[str] = "masks by part of speech: arXiv 2605.24518; masking keys is our reading"
    example: ClassVar[str] = "part_of_speech(keep=[noun, verb, adj, adv, propn])"

    def __post_init__(self) -> None:
        for tag in listed(self, "keep"):
            if tag not in TAGS:
                raise PatternError(f"{self.name}(): {unknown('part of speech', tag, TAGS)}")
        if not self.keep:
            raise refused(self, "keep", f"needs one or more of {', '.join(TAGS)}")
        distinct_names(self, "keep", TAGS)

    needs = frozenset({"tags"})

    def rule(self, tokens: TokenBatch, layer: int = 0) -> Rule:
        tags = tokens.need("tags", self)
        kept = torch.tensor([TAGS.index(tag) for tag in self.keep], device=tags.device)
        return Rule((Product(keys=torch.isin(tags, kept)),))
