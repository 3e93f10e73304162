"""Numbers and times in sentences, and any text as a line."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural but for one.

    >>> counted(1, "text"), counted(0, "text"), counted(1200, "real token")
    ('1 text', '0 texts', '1,200 real tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time.

    >>> duration(4.21), duration(75), duration(7300)
    ('4.2 s', '1 min 15 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def one_line(text: object, length: int) -> str:
    r"""Any text as one line of printable letters that is not too long.

    >>> one_line("a\n b", 9), one_line("neighbor", 5)
    ('a b', 'neig…')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
