"""Keys by lexical similarity: of the whole text, or of other sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sparseattn.degrees.ranking import ListedRanking

if TYPE_CHECKING:
    from sparseattn.pattern import Pattern


@dataclass(frozen=True)
class SimilarityRanking(ListedRanking):
    """Keys by the cosine of their input embedding with the query's; a degree is how many."""

    name: ClassVar[str] = "similarity"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.similarity import Similarity

        return Similarity(int(degree))


@dataclass(frozen=True)
class OtherSentenceRanking(ListedRanking):
    """The order of `similarity`, of keys in other sentences alone."""

    name: ClassVar[str] = "other_sentence_similarity"

    def pattern(self, degree: float) -> Pattern:
        from sparseattn.patterns.similarity import Similarity

        return Similarity(int(degree), other_sentence=True)
