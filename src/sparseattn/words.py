"""Numbers in sentences, and any text as a line."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural but for one.

    >>> counted(1, "text"), counted(0, "text"), counted(1200, "real token")
    ('1 text', '0 texts', '1,200 real tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def one_line(text: object, length: int) -> str:
    r"""Any text as one line of printable letters that is not too long.

    >>> one_line("a\n b", 9), one_line("neighbor", 5)
    ('a b', 'neig…')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
