"""The colours of every picture: one for each kind of connection, and series for what is compared.

Hues after Okabe and Ito, "Color universal design", 2008, their lightness chosen such that all pairs
stay apart where red, green or blue is not seen, and that each has a contrast of at least 3 to the
page. In grey print the marks tell kinds apart. Loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """The colours of a light or a dark page, as `#rrggbb`.

    Attributes:
        page: The ground.
        ink: Text.
        quiet: Text of less weight.
        rule: Lines.
        band: Areas that stand back: pairs that are not allowed, heads of tables.
        series: What is compared with each other, such as arms of a study.
    """

    page: str
    ink: str
    quiet: str
    rule: str
    band: str
    series: tuple[str, ...]


LIGHT = Page(
    page="#ffffff",
    ink="#1f2328",
    quiet="#59636e",
    rule="#d8dee4",
    band="#eaeef2",
    series=(
        "#0072b2", "#d77336", "#06a788", "#85186b", "#565027", "#91606e", "#a574ef", "#4c2124",
    ),
)  # fmt: skip
DARK = Page(
    page="#14181d",
    ink="#e6eaef",
    quiet="#9da7b3",
    rule="#353c45",
    band="#232a32",
    series=(
        "#58b4ec", "#f77d05", "#59f3c6", "#c092a3", "#fadc3f", "#846687", "#8379f6", "#cc3e38",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of connection.

    Attributes:
        name: What it is called.
        words: Which pairs it is, in words.
        light: Its colour on a light page.
        dark: Its colour on a dark page.
        marker: Its mark, as matplotlib spells it; tells kinds apart without colours.
        patterns: The patterns that make such pairs.
        rankings: The rankings of degrees that do.
    """

    name: str
    words: str
    light: str
    dark: str
    marker: str
    patterns: tuple[str, ...] = ()
    rankings: tuple[str, ...] = ()

    def on(self, page: Page) -> str:
        """Its colour on a page."""
        return self.dark if page == DARK else self.light


def _kind(at: int, name: str, words: str, marker: str, patterns: str, rankings: str = "") -> Kind:
    colours = LIGHT.series[at], DARK.series[at]
    return Kind(name, words, *colours, marker, tuple(patterns.split()), tuple(rankings.split()))


#: Every kind by name, in the order of legends.
KINDS = {
    kind.name: kind
    for kind in (
        _kind(0, "near", "near in the text", "s",
              "neighbor dilated strided block elastic irregular", "neighbor elastic"),
        _kind(1, "similar", "similar words", "D",
              "similarity same_word", "similarity other_sentence_similarity"),
        _kind(2, "parse", "along the parse", "^", "dependency part_of_speech", "dependency"),
        _kind(3, "random", "drawn at random", "o", "random matched_random", "random"),
        _kind(4, "global", "global tokens", "P", "global"),
        _kind(6, "segment", "the same sentence or text", "v", "sentence segment"),
        _kind(7, "other", "another pattern", "X", ""),
        Kind("dense", "every pair", "#6e7781", "#6e7781", "s", ("full",)),
        Kind("none", "its own place alone", "#6e7781", "#6e7781", "x", ("self",)),
    )
}  # fmt: skip


def kind_of(pattern: str) -> Kind:
    """The kind of the pairs of a pattern, or of a ranking, by its name.

    >>> kind_of("dependency").name, kind_of("one_of_my_own").name
    ('parse', 'other')
    """
    known = (k for k in KINDS.values() if pattern in k.patterns or pattern in k.rankings)
    return next(known, KINDS["other"])
