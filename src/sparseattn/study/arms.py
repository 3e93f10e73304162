"""What an arm's `pattern` may say."""

from __future__ import annotations

from sparseattn.errors import StudyError

__all__ = ["DENSE", "check", "needs", "with_matched_random"]

#: The arm that keeps every connection.
DENSE = "dense"

#: What the special tokens that a pattern names need; anything beyond depends on the text.
_POSITIONAL = frozenset({"separators", "special"})


def check(text: str) -> str:
    """Checks the pattern of an arm.

    Returns:
        Its usual spelling.

    Raises:
        StudyError: It is neither `dense` nor a pattern's spec string.
        PatternError: It names an unknown pattern or argument, or a value it cannot take.

    >>> check("neighbor(2)|global(cls)")
    'neighbor(radius=2) | global(cls)'
    """
    from sparseattn.patterns.spec import parse

    if text.strip() == DENSE:
        return DENSE
    if "(" not in text:
        raise StudyError(
            f"pattern {text!r} is neither 'dense' nor a pattern such as 'neighbor(radius=2)'"
        )
    return str(parse(text))


def needs(text: str) -> frozenset[str]:
    """The annotations that a checked pattern reads."""
    from sparseattn.patterns.spec import parse

    return frozenset() if text == DENSE else parse(text).needs


def with_matched_random(text: str) -> str | None:
    """The control of a pattern that looks at the text: the same degrees, other connections.

    Each part of the union that depends on the text is put into `matched_random`; the others, such
    as global tokens, stay.

    Returns:
        The control's pattern; None where no part depends on the text.

    >>> with_matched_random("dependency() | global(cls)")
    'matched_random(dependency()) | global(cls)'
    """
    from sparseattn.patterns.base import Pattern, Union
    from sparseattn.patterns.spec import parse

    if text == DENSE:
        return None
    found = False

    def control(pattern: Pattern) -> Pattern:
        nonlocal found
        if isinstance(pattern, Union):
            return control(pattern.left) | control(pattern.right)
        if pattern.needs <= _POSITIONAL or pattern.name == "matched_random":
            return pattern
        found = True
        return parse(f"matched_random({pattern})")

    made = str(control(parse(text)))
    return made if found else None
