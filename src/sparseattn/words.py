"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural but for one.

    >>> counted(1, "text"), counted(0, "text"), counted(1200, "real token")
    ('1 text', '0 texts', '1,200 real tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
